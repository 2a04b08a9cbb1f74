"""Guards that end themselves by SIGKILL at one point of an object's way, for benchmarks/guard_kill.py.

Each, and each worker of its model, is a process of its own, forked from a server that has imported their modules and
nothing else: whatever a guard knows of the one before it, it reads from the disk.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from titer.guard.context import Context, opened
from titer.guard.home import Home
from titer.guard.settings import load

TESTS = Path(__file__).resolve().parent.parent / "tests" / "guard"
PATIENCE = 120.0
sys.path[:0] = [str(TESTS / "receive"), str(TESTS / "deliver")]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("titer.guard.service", "titer.guard.receive.component", "titer.guard.judge.component"),
        *("titer.guard.deliver.component", "titer.guard.operate.keeper", "titer.guard.operate.setup"),
        *(
            "titer.guard.judge.runtime",
            "titer.guard.judge.demo",
            "titer.guard.operate.studies",
            "titer.assess.manifest",
        ),
    ]
)


def victim(ready: Connection, server: Any, folder: Path, point: str, number: int) -> None:
    """Be the guard, until it dies at a point or is told to stop."""
    from delivery_victim import dying
    from dicom_victim import Fault

    import titer.guard.deliver.component as deliver
    from titer.guard.judge.component import Judge
    from titer.guard.operate.keeper import Keeper
    from titer.guard.receive.component import Receiver
    from titer.guard.service import Service

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # every thread's: `sigwait` below takes it
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, sys.stderr.fileno())
    _fork_workers(server)
    fault = Fault(point, number)
    deliver.Worker = dying(fault)  # type: ignore[misc]
    home = Home(folder)
    context: Context = opened(home, load(home))
    makers = (Keeper, deliver.Deliverer, Judge, partial(Receiver, faults=fault))
    service = Service(context, makers)
    service.start()
    ready.send(point)
    signal.sigwait({signal.SIGTERM})
    service.stop()
    context.close()


def _fork_workers(server: Any) -> None:
    """Take the model's workers from the driver's server: a killed guard would have to start one of its own each time.

    Private names of multiprocessing of 3.11 to 3.13; later ones spawn the workers, which is slower.
    """
    import titer.guard.judge.worker as worker

    if sys.version_info < (3, 14):
        forkserver._forkserver._forkserver_address = server
        forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
        worker._SPAWN = _FORKS  # type: ignore[assignment]


@contextmanager
def guard(home: Home, point: str, number: int = 1) -> Iterator[BaseProcess]:
    """Run a guard that dies at a point."""
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_address
    ours, theirs = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=victim, args=(theirs, server, home.root, point, number))
    process.start()
    theirs.close()
    try:
        _heard(ours)
        yield process
    finally:
        process.terminate()
        process.join(PATIENCE)
        ours.close()


def _heard(ours: Connection) -> None:
    """Wait until it says that it is ready, or died while it took up what was left."""
    try:
        if ours.poll(PATIENCE):
            ours.recv()
    except EOFError:
        return
