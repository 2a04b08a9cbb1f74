"""Kill -9 at eight points of an object's way through a whole guard; exit status 1 where something was lost or doubled.

    python benchmarks/guard_kill.py                              run the points that are left, then print the table
    python benchmarks/guard_kill.py --only "journal,before mark" these points alone
    python benchmarks/guard_kill.py --times 2                    fewer kills at each point

Receiver, judge with the demo model, deliverer and keeper run in one process, with Orthanc behind them. It ends itself
by SIGKILL when an object comes to the point for the n-th time, n from 1 to 4: with the delivery's points the fourth
item of a study is the report on it. A modality sends a study of three radiographs meanwhile; after the next start it
sends again all of a study that was not acknowledged whole, as modalities do. After the last kill the guard runs until
nothing waits.

Each guard, and each worker of its model, is a process of its own, forked from a server that has imported their modules
and nothing else: to import torch anew, twice for each kill, took most of the CPU time.

| column | is |
|---|---|
| lost | objects acknowledged that are neither in Orthanc nor kept as blocked |
| without a verdict | reports in Orthanc of a study without a released verdict, and series without any verdict |
| doubled | objects twice in the database or in Orthanc, and reports beyond one a verdict |

The table is written after every point (`--table`). What was found is kept in `--work`, and a point whose kills stand
there is not run again unless the code of the guard has changed since.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from guard_rig import SETTINGS, Studies, archived, free_ports, send, sop_uid
from guard_victim import PATIENCE, TESTS, guard
from sqlalchemy import Engine, func, select

from titer.assess.manifest import hardware
from titer.guard.audit.verify import verified
from titer.guard.home import Home
from titer.guard.judge.demo import demo_bundle
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.people import add
from titer.guard.operate.setup import init
from titer.guard.settings import load
from titer.guard.store.database import connect
from titer.guard.store.tables import objects, outbox, series, verdicts

HERE = Path(__file__).resolve().parent
GUARD = HERE.parent / "src" / "titer" / "guard"
RECEIVING = ("part", "fsync", "rename", "journal", "ack")
DELIVERING = ("before send", "before mark", "after mark")
POINTS = (*RECEIVING, *DELIVERING)
NEVER = "none"
COLUMNS = ("killed at", "times", "lost", "without a verdict", "doubled", "acknowledged in all", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of the kills at one point; `code` is the digest of the guard that was killed."""

    point: str
    code: str
    times: int
    deaths: int
    lost: int
    without: int
    doubled: int
    acknowledged: int
    seconds: float
    problems: tuple[str, ...]

    def line(self) -> str:
        """Return its line of the table."""
        figures = (self.deaths, self.lost, self.without, self.doubled, self.acknowledged, round(self.seconds))
        return f"| {self.point} | {' | '.join(map(str, figures))} |"

    def harm(self) -> list[str]:
        """Return what is wrong."""
        counts = {"lost": self.lost, "without a verdict": self.without, "doubled": self.doubled}
        return [
            *(f"{self.point}: {count} {name}" for name, count in counts.items() if count),
            *(f"{self.point}: {problem}" for problem in self.problems),
            *([f"{self.point}: died {self.deaths} of {self.times} times"] * (self.deaths != self.times)),
        ]


def killed(home: Home, port: int, point: str, times: int, studies: Studies) -> tuple[int, set[str]]:
    """Kill it `times` times; returns how often it died of it, and what was acknowledged."""
    deaths, acknowledged, left = 0, set(), list[bytes]()
    for turn in range(times):
        began = time.monotonic()
        with guard(home, point, 1 + turn % 4) as process:
            started = time.monotonic()
            while process.is_alive() and time.monotonic() < started + PATIENCE:
                files = left or studies.one()
                answers: dict[str, int] = {}
                send(port, files, "CR1", answers, [])
                acknowledged |= {uid for uid, status in answers.items() if status == 0}
                left = [] if all(answers.get(sop_uid(one)) == 0 for one in files) else files
                process.join(6.0 if point in DELIVERING else 0.3)
            deaths += process.exitcode == -signal.SIGKILL
        seconds = (started - began, time.monotonic() - started)
        _say(f"{point}: kill {turn + 1} of {times}, ready after {seconds[0]:.1f} s, dead {seconds[1]:.1f} s later")
    return deaths, acknowledged


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


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
            time.sleep(0.2)
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


def one_point(point: str, times: int, folder: Path, archive: Orthanc, model: Path, studies: Studies) -> Found:
    """Kill at one point, and count."""
    began = time.monotonic()
    dicom, web = free_ports(2)
    home = Home(folder / point.replace(" ", "-"))
    settings = SETTINGS.format(dicom=dicom, web=web, archive=archive.address)
    init(home.root, account=add, model=lambda place: shutil.copytree(model, place), settings=settings)
    engine = connect(home, load(home).database)
    try:
        deaths, acknowledged = killed(home, dicom, point, times, studies)
        done = settled(home, engine)
        lost, without, doubled = counted(engine, archive, acknowledged)
    finally:
        engine.dispose()
    problems = (*verified(home)[1], *(() if done else ("something still waits",)))
    return Found(
        point=point,
        code=code(),
        times=times,
        deaths=deaths,
        lost=lost,
        without=without,
        doubled=doubled,
        acknowledged=len(acknowledged),
        seconds=time.monotonic() - began,
        problems=problems,
    )


def code() -> str:
    """Return the digest of the guard's files and of what kills it."""
    found = hashlib.sha256()
    mine = [Path(__file__), HERE / "guard_rig.py", HERE / "guard_victim.py", *TESTS.glob("*/*_victim.py")]
    for path in sorted([*GUARD.rglob("*.py"), *mine]):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def kept(work: Path, times: int) -> dict[str, Found]:
    """Return what was found at each point with so many kills of this very code."""
    made = {}
    for point in POINTS:
        path = _place(work, point)
        if path.is_file():
            values = json.loads(path.read_text())
            found = Found(**values | {"problems": tuple(values["problems"])})
            if (found.code, found.times) == (code(), times):
                made[point] = found
    return made


def _place(work: Path, point: str) -> Path:
    return work / f"{point.replace(' ', '-')}.json"


def table(done: dict[str, Found], times: int) -> str:
    """Return the page."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [done[point].line() if point in done else f"| {point} | not run" + " |" * 6 for point in POINTS]
    harm = "; ".join(wrong for found in done.values() for wrong in found.harm()) or "none"
    return (
        "# Kill -9 at eight points of the flow\n\n"
        f"Printed by `python benchmarks/guard_kill.py --times {times}`. Machine: {json.dumps(hardware('cpu'))}.\n"
        "Columns: see the file itself. Seconds are those of all kills, and of the run that takes up what they left.\n\n"
        + "\n".join(lines)
        + f"\n\nharm: {harm}\n"
    )


def run(points: list[str], given: argparse.Namespace) -> None:
    """Kill at each of the points, and keep what was found after each."""
    given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder, studies = Path(name), Studies(int(time.time()), templates=2)
        demo_bundle(folder / "model")
        for number, point in enumerate(points):
            archive = Orthanc(folder / f"archive-{number}").start()  # its own: what it holds is this guard's
            try:
                found = one_point(point, given.times, folder, archive, folder / "model", studies)
            finally:
                archive.stop()
            _place(given.work, point).write_text(json.dumps(asdict(found)))
            given.table.write_text(table(kept(given.work, given.times), given.times))


def main() -> int:
    """Run what is left and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="", help="names of points, with commas between them")
    parser.add_argument("--work", type=Path, default=HERE.parent / ".cache" / "bench-guard-kill")
    page = HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}-guard-kill.md"
    parser.add_argument("--table", type=Path, default=page, help="the file that is written")
    given = parser.parse_args()
    only = [one.strip() for one in given.only.split(",") if one.strip()] or list(POINTS)
    if set(only) - set(POINTS):
        raise SystemExit(f"--only = {given.only!r}: allowed are {', '.join(POINTS)}")
    left = [point for point in only if point not in kept(given.work, given.times)]
    if left:
        run(left, given)
    done = kept(given.work, given.times)
    print(table(done, given.times))
    return any(found.harm() for found in done.values())


if __name__ == "__main__":
    sys.exit(main())
