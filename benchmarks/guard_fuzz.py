"""Mutated files, units, associations and inputs against every reader of the guard; exit status 1 where one did harm.

    python benchmarks/guard_fuzz.py [--count 10000] [--seed 1]

T0 and the parsers of units, T1 and T2, and the checkers of variant files and tables run in this process: a crash or an
error that is no named refusal ends it. The associations go to a receiver in a process of its own; after every hundred
of them a good peer must be served. Harm is: an error, a good peer that is not served within 10 s, memory that grows
by more than 64 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "guard" / "receive")]

from tests.guard import mutants  # noqa: E402

from titer.guard import keys  # noqa: E402
from titer.guard.home import Home  # noqa: E402

MB = 1e6
MOST_GROWTH = 64 * MB
MOST_WAIT = 10.0
SETTINGS = """\
[dicom]
request_seconds = 1
idle_seconds = 1
associations_per_peer = 30
[spool]
free_mib = 1
[[routes]]
name = "all"
"""


class Watch:
    """The most memory that a process had while this was looked at."""

    def __init__(self, process: psutil.Process) -> None:
        """Note what it has now."""
        self._process, self._ended = process, threading.Event()
        self.before = self.most = float(process.memory_info().rss)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            try:
                self.most = max(self.most, float(self._process.memory_info().rss))
            except psutil.NoSuchProcess:
                return

    @property
    def growth(self) -> float:
        """Bytes."""
        return self.most - self.before


@contextmanager
def receiver(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run a receiver; gives its port and process."""
    home = Home(folder)
    keys.make(home.keys)
    home.settings.write_text(SETTINGS)
    victim = ROOT / "tests" / "guard" / "receive" / "dicom_victim.py"
    command = [sys.executable, str(victim), str(folder), "none", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), psutil.Process(process.pid)
            assert process.poll() is None, "the receiver ended"
        finally:
            process.terminate()
            process.wait(30)


def readers(count: int, seed: int, folder: Path) -> Iterator[tuple[str, int, int, float]]:
    """Yield what was given, how many, how many were refused or had a finding, and bytes of growth."""
    parts: tuple[tuple[str, Callable[[int], int]], ...] = (
        ("files to T0", lambda n: mutants.light_check(n, seed)),
        ("units to their parsers, three kinds", lambda n: mutants.units(n, seed)),
        ("files to T1 and T2", lambda n: mutants.rules(n, seed, folder / "a.dcm")),
        ("variant files and tables", lambda n: mutants.inputs(n, seed, folder)),
    )
    for name, run in parts:
        run(min(count, 100))  # what is imported and cached at the first use is no growth
        with Watch(psutil.Process()) as watch:
            found = run(count)
        yield name, count, found, watch.growth


def live(count: int, seed: int, folder: Path) -> tuple[float, float]:
    """Send associations to a receiver; returns bytes of growth, and the longest that a good peer waited, s."""
    with receiver(folder) as (port, process):
        for number in range(3):
            mutants.good_peer(port, 900_000 + number)
        mutants.associations(port, min(count, 50), seed + 1, every=25)
        with Watch(process) as watch:
            longest = mutants.associations(port, count, seed)
        return watch.growth, longest


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    harm, began = [], time.monotonic()
    print("| mutated | given | refused or found | memory growth, MB | good peer waited, s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for what, count, found, growth in readers(given.count, given.seed, Path(name)):
            print(f"| {what} | {count} | {found} | {growth / MB:.0f} | |", flush=True)
            harm += [f"{what}: memory grew by {growth / MB:.0f} MB"] * (growth > MOST_GROWTH)
            harm += [f"{what}: none was refused"] * (not found)
        growth, longest = live(given.count, given.seed, Path(name) / "guard")
    print(f"| associations to a running receiver | {given.count} | | {growth / MB:.0f} | {longest:.2f} |", flush=True)
    harm += [f"receiver: memory grew by {growth / MB:.0f} MB"] * (growth > MOST_GROWTH)
    harm += [f"a good peer waited {longest:.1f} s"] * (longest > MOST_WAIT)
    print(f"\n{time.monotonic() - began:.0f} s; harm: {'; '.join(harm) or 'none'}")
    return bool(harm)


if __name__ == "__main__":
    sys.exit(main())
