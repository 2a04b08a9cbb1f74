"""A whole guard under a steady load: is memory flat, is everything delivered or kept, is the audit chain whole?

    python benchmarks/guard_soak.py [--minutes 30] [--rate 20] [--every 10] [--json]

`titer guard run` in a process of its own with the demo model, every rule, and Orthanc behind it. Studies of three
radiographs (200 kB each) with new UIDs come at `--rate` objects a second, four of five by pynetdicom (whose waits for
the acknowledgement are the latencies), the others by storescu; every tenth study is tampered. Afterwards nothing more
is sent until nothing waits, or five minutes are over.

Memory is resident memory of the guard's process and its children. It is flat where the median of the last tenth of
the samples differs by at most 5 % from the median of as many samples from the first sixth of the time on (minute 5 of
30); with under ten minutes it is shown and not judged. Exit status 1: something was lost, still waits, is not flat, or
the chain is not whole. Thirty minutes at 20/s take 16 GB of disk (twice 36,000 objects).
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from guard_rig import IMAGES, SETTINGS, Studies, archived, free_ports, send, storescu
from sqlalchemy import Engine, func, select

from titer.guard.audit.verify import verified
from titer.guard.home import Home
from titer.guard.judge.demo import demo_bundle
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.people import add
from titer.guard.operate.setup import init
from titer.guard.settings import load
from titer.guard.store.database import connect
from titer.guard.store.tables import objects, outbox, verdicts

MIB = 1 << 20
FLAT = 0.05
JUDGED_FROM = 10.0
DRAIN_SECONDS = 300.0
HOSTILE_EVERY = 10


@dataclass(slots=True)
class Sent:
    """What the senders were told."""

    answers: dict[str, int] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    studies: int = 0
    late: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at a running guard."""

    minute: float
    resident: int
    spool: int
    spool_bytes: int
    undecided: int
    waiting: int


@contextmanager
def guard(home: Home, web: int) -> Iterator[psutil.Process]:
    """Run a guard until it is told to stop, as an administrator does."""
    log = home.root / "log.txt"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [sys.executable, "-m", "titer.cli.main", "guard", "run", str(home.root)], stdout=stream, stderr=stream
        ) as process,
    ):
        try:
            _until(lambda: process.poll() is not None or _ready(web), 300)
            assert process.poll() is None, log.read_text()
            yield psutil.Process(process.pid)
            assert process.poll() is None, "the guard ended: " + log.read_text()[-2000:]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(120)


def _ready(web: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{web}/health/ready", trust_env=False, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _until(done: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def load_it(port: int, minutes: float, rate: float, folder: Path) -> Sent:
    """Send studies at a rate; a sender that cannot keep up is told by `late`, the longest delay of a start, in s."""
    studies, sent = Studies(int(time.time())), Sent()
    pause, began = IMAGES / rate, time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        while (due := began + sent.studies * pause) < began + minutes * 60:
            files = studies.one(hostile=sent.studies % HOSTILE_EVERY == HOSTILE_EVERY - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            sent.late = max(sent.late, time.monotonic() - due)
            if sent.studies % 5 == 4:
                pool.submit(storescu, port, files, folder / str(sent.studies), sent.answers).add_done_callback(_told)
            else:
                name = f"CR{sent.studies % 8}"
                pool.submit(send, port, files, name, sent.answers, sent.waits).add_done_callback(_told)
            sent.studies += 1
    return sent


def _told(future: Any) -> None:
    if (error := future.exception()) is not None:
        print(f"a sender failed: {error!r}", file=sys.stderr)


def look(engine: Engine, home: Home, process: psutil.Process, began: float) -> Sample:
    """Look at a guard from outside."""
    resident = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
    files = [path.stat().st_size for path in home.spool.glob("*/*.dcm")]
    with engine.connect() as connection:
        undecided = select(func.count()).select_from(objects).where(objects.c.state.in_(("received", "checked")))
        waiting = select(func.count()).select_from(outbox).where(outbox.c.state == "waiting")
        counts = [int(connection.execute(one).scalar_one()) for one in (undecided, waiting)]
    return Sample(
        minute=(time.monotonic() - began) / 60,
        resident=resident,
        spool=len(files),
        spool_bytes=sum(files),
        undecided=counts[0],
        waiting=counts[1],
    )


def soak(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run it; returns what was measured."""
    archive = Orthanc(folder / "archive").start()
    dicom, web = free_ports(2)
    home = Home(folder / "guard")
    settings = SETTINGS.format(dicom=dicom, web=web, archive=archive.address)
    init(home.root, account=add, model=demo_bundle, settings=settings)
    engine, samples, ended = connect(home, load(home).database), [], threading.Event()
    try:
        with guard(home, web) as process:
            began = time.monotonic()

            def watch() -> None:
                while not ended.wait(given.every):
                    samples.append(look(engine, home, process, began))
                    _print(samples[-1])

            watching = threading.Thread(target=watch)
            watching.start()
            try:
                sent = load_it(dicom, given.minutes, given.rate, folder / "files")
            finally:
                ended.set()
                watching.join()
            last = time.monotonic()
            _until(lambda: _drained(look(engine, home, process, began)), DRAIN_SECONDS)
            drained = time.monotonic() - last
        told = _accounted(engine, home, archive, sent)
    finally:
        engine.dispose()
        archive.stop()
    return told | {"drained_s": round(drained, 1)} | _memory(samples, given.minutes)


def _drained(one: Sample) -> bool:
    return one.undecided == one.waiting == 0


def _print(one: Sample) -> None:
    print(
        f"| {one.minute:.1f} | {one.resident / MIB:.0f} | {one.spool} | {one.spool_bytes / MIB:.0f} | {one.undecided} "
        f"| {one.waiting} |",
        flush=True,
    )


def _accounted(engine: Engine, home: Home, archive: Orthanc, sent: Sent) -> dict[str, Any]:
    """Find every acknowledged object again: in the archive, or kept back as blocked."""
    there = {one["SOPInstanceUID"] for one in archived(archive)}
    with engine.connect() as connection:
        kept = set(connection.scalars(select(objects.c.sop_instance_uid).where(objects.c.state == "quarantined")))
        held = connection.scalar(select(func.count()).select_from(verdicts).where(verdicts.c.state == "held"))
        waiting = connection.scalar(select(func.count()).select_from(outbox).where(outbox.c.state != "delivered"))
        marked = select(outbox.c.subject).where(outbox.c.kind == "object", outbox.c.state == "delivered")
        delivered = set(connection.scalars(marked))
    taken = {uid for uid, status in sent.answers.items() if status == 0}
    waits = sorted(sent.waits) or [0.0]
    rows, problems = verified(home)
    return {
        "studies": sent.studies,
        "acknowledged": len(taken),
        "refused": len(sent.answers) - len(taken),
        "delivered": len(taken & there & delivered - kept),
        "kept": len(taken & kept),
        "lost": len(taken - (there & delivered) - kept),
        "blocked_but_delivered": len(kept & there),
        "held_results": held,
        "waiting": waiting,
        "chain_rows": rows,
        "chain": problems,
        "wait_ms": {name: round(1000 * _share(waits, at), 1) for name, at in (("p50", 0.5), ("p99", 0.99))},
        "late_s": round(sent.late, 2),
    }


def _share(values: list[float], share: float) -> float:
    return values[min(int(share * len(values)), len(values) - 1)]


def _memory(samples: list[Sample], minutes: float) -> dict[str, Any]:
    """Compare the end with the first sixth's end, by medians of a tenth of the samples each."""
    settled = [one for one in samples if one.minute >= minutes / 6]
    count = max(len(samples) // 10, 1)
    first = statistics.median(one.resident for one in settled[:count])
    end = statistics.median(one.resident for one in settled[-count:])
    return {
        "memory_mib": [round(first / MIB), round(end / MIB)],
        "memory_change": round(end / first - 1, 4),
        "flat": abs(end / first - 1) <= FLAT if minutes >= JUDGED_FROM else None,
    }


def harm(told: dict[str, Any]) -> list[str]:
    """Return what is wrong with a soak."""
    wrong = [f"{told[key]} {key}" for key in ("lost", "blocked_but_delivered", "waiting") if told[key]]
    return [*wrong, *told["chain"], *(["memory is not flat"] if told["flat"] is False else [])]


def main() -> int:
    """Run it and print tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="objects a second")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between looks")
    parser.add_argument("--json", action="store_true", help="the figures as JSON in the last line")
    given = parser.parse_args()
    print(
        "| minute | resident, MiB | files in the spool | MiB | undecided | outbox waiting |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        told = soak(Path(name), given)
    print("\n" + "\n".join(f"- {key}: {value}" for key, value in told.items()))
    print(f"- harm: {'; '.join(harm(told)) or 'none'}")
    if given.json:
        print(json.dumps(told))
    return bool(harm(told))


if __name__ == "__main__":
    sys.exit(main())
