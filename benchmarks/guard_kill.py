"""Kill -9 at eight points of an object's way through a whole guard; exit status 1 where something was lost or doubled.

    python benchmarks/guard_kill.py [--times 20] [--points journal "before mark" ...]

Receiver, judge with the demo model, deliverer and keeper run in one process, with Orthanc behind them. It ends itself
by SIGKILL when an object comes to the point for the n-th time, n from 1 to 4: with the delivery's points the fourth
item of a study is the report on it. A modality sends a study of three radiographs meanwhile; after the next start it
sends again all of a study that was not acknowledged whole, as modalities do. After the last kill the guard runs until
nothing waits.

| column | is |
|---|---|
| lost | objects acknowledged that are neither in Orthanc nor kept as blocked |
| without a verdict | reports in Orthanc of a study without a released verdict, and series without any verdict |
| doubled | objects twice in the database or in Orthanc, and reports beyond one a verdict |
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from guard_rig import SETTINGS, Studies, archived, free_ports, send, sop_uid
from sqlalchemy import Engine, func, select

from titer.guard.audit.verify import verified
from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.judge.demo import demo_bundle
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.people import add
from titer.guard.operate.setup import init
from titer.guard.settings import load
from titer.guard.store.database import connect
from titer.guard.store.tables import objects, outbox, series, verdicts

TESTS = Path(__file__).resolve().parent.parent / "tests" / "guard"
sys.path[:0] = [str(TESTS / "receive"), str(TESTS / "deliver")]
RECEIVING = ("part", "fsync", "rename", "journal", "ack")
DELIVERING = ("before send", "before mark", "after mark")
POINTS = (*RECEIVING, *DELIVERING)
NEVER = "none"
PATIENCE = 120.0


def victim(folder: Path, point: str, number: int) -> None:
    """Be the guard, until it dies at a point or is told to stop."""
    from delivery_victim import dying
    from dicom_victim import Fault

    import titer.guard.deliver.component as deliver
    from titer.guard.judge.component import Judge
    from titer.guard.operate.keeper import Keeper
    from titer.guard.receive.component import Receiver
    from titer.guard.service import Service

    fault = Fault(point, number)
    deliver.Worker = dying(fault)  # type: ignore[misc]
    home = Home(folder)
    context: Context = opened(home, load(home))
    makers = (Keeper, deliver.Deliverer, Judge, partial(Receiver, faults=fault))
    service = Service(context, makers)
    service.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    service.stop()
    context.close()


@contextmanager
def guard(home: Home, point: str, number: int = 1) -> Iterator[subprocess.Popen[str]]:
    """Run a guard that dies at a point."""
    command = [sys.executable, __file__, "--victim", str(home.root), point, str(number)]
    with (
        (home.root / "log.txt").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it says that it is ready, or died while it took up what was left
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(120)


def killed(home: Home, port: int, point: str, times: int, studies: Studies) -> tuple[int, set[str]]:
    """Kill it `times` times; returns how often it died of it, and what was acknowledged."""
    deaths, acknowledged, left = 0, set(), list[bytes]()
    for turn in range(times):
        with guard(home, point, 1 + turn % 4) as process:
            end = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < end:
                files = left or studies.one()
                answers: dict[str, int] = {}
                send(port, files, "CR1", answers, [])
                acknowledged |= {uid for uid, status in answers.items() if status == 0}
                left = [] if all(answers.get(sop_uid(one)) == 0 for one in files) else files
                _wait(process, 6.0 if point in DELIVERING else 0.3)
            deaths += process.poll() == -signal.SIGKILL
    return deaths, acknowledged


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def settled(home: Home, engine: Engine) -> bool:
    """Run it once more until nothing is left to do; False where something still is after a while."""
    undecided = select(func.count()).select_from(objects).where(objects.c.state.in_(("received", "checked")))
    open_ = select(func.count()).select_from(series).where(series.c.state == "open")
    waiting = select(func.count()).select_from(outbox).where(outbox.c.state == "waiting")
    with guard(home, NEVER):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with engine.connect() as connection:
                if not any(connection.scalar(one) for one in (undecided, open_, waiting)):
                    return True
            time.sleep(0.5)
    return False


def counted(engine: Engine, archive: Orthanc, acknowledged: set[str]) -> tuple[int, int, int]:
    """Return how many were lost, are without a verdict, were doubled."""
    there = archived(archive)
    images = Counter(one["SOPInstanceUID"] for one in there if one["Modality"] == "CR")
    reports = Counter(one["StudyInstanceUID"] for one in there if one["Modality"] == "SR")
    with engine.connect() as connection:
        rows = Counter(connection.scalars(select(objects.c.sop_instance_uid)))
        kept = set(connection.scalars(select(objects.c.sop_instance_uid).where(objects.c.state == "quarantined")))
        joined = select(series.c.study_instance_uid, verdicts.c.state).join(
            verdicts, verdicts.c.subject == series.c.series_instance_uid, isouter=True
        )
        found = connection.execute(joined.where(series.c.state == "judged")).all()
    sendable = Counter(row.study_instance_uid for row in found if row.state in {"released", "accepted", "superseded"})
    without = sum(row.state is None for row in found) + sum(not sendable[study] for study in reports)
    twice = sum(count > 1 for counts in (images, rows) for count in counts.values())
    doubled = twice + sum(max(count - sendable[study], 0) for study, count in reports.items() if sendable[study])
    return len(acknowledged - set(images) - kept), without, doubled


def one_point(point: str, times: int, folder: Path, archive: Orthanc, model: Path, studies: Studies) -> list[str]:
    """Kill at one point; prints its line, and returns what is wrong."""
    import shutil

    dicom, web = free_ports(2)
    home = Home(folder / point.replace(" ", "-"))
    settings = SETTINGS.format(dicom=dicom, web=web, archive=archive.address)
    init(home.root, account=add, model=lambda place: shutil.copytree(model, place), settings=settings)
    engine = connect(home, load(home).database)
    try:
        deaths, acknowledged = killed(home, dicom, point, times, studies)
        done = settled(home, engine)
        wrong = counted(engine, archive, acknowledged)
    finally:
        engine.dispose()
    problems = verified(home)[1]
    print(f"| {point} | {deaths} | {' | '.join(map(str, wrong))} | {len(acknowledged)} |", flush=True)
    names = ("lost", "without a verdict", "doubled")
    return [
        *(f"{point}: {count} {name}" for count, name in zip(wrong, names, strict=True) if count),
        *(f"{point}: {problem}" for problem in problems),
        *([f"{point}: died {deaths} of {times} times"] * (deaths != times)),
        *([f"{point}: something still waits"] * (not done)),
    ]


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--points", nargs="+", choices=POINTS, default=POINTS)
    parser.add_argument("--victim", nargs=3)
    given = parser.parse_args()
    if given.victim:
        victim(Path(given.victim[0]), given.victim[1], int(given.victim[2]))
        return 0
    print("| killed at | times | lost | without a verdict | doubled | acknowledged in all |\n|---|---|---|---|---|---|")
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, studies = Path(name), Studies(int(time.time()), templates=2)
        demo_bundle(folder / "model")
        for number, point in enumerate(given.points):
            archive = Orthanc(folder / f"archive-{number}").start()  # its own: what it holds is this guard's
            try:
                wrong += one_point(point, given.times, folder, archive, folder / "model", studies)
            finally:
                archive.stop()
    print(f"\nharm: {'; '.join(wrong) or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
