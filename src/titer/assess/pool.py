"""Worker processes: one torch thread each, told apart from the console, ended with their parent."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import util
from typing import Any

from titer.core.errors import Interrupted

_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Message:
    """What a worker tells the console: a finished cell (`done`), or only what is running."""

    text: str
    done: bool = False


Listener = Callable[[Message], None]
_outbox: Any = None


def tell(message: Message) -> None:
    """Send a message to the console from wherever this runs."""
    if _outbox is not None:
        _outbox.put(message)


class Executor:
    """Runs work in `workers` processes, or in this one for a single worker."""

    def __init__(self, workers: int, listener: Listener) -> None:
        self._listener = listener
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._inbox: Any = None
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            self._inbox = context.Queue()
            self._pool = ProcessPoolExecutor(
                workers, mp_context=context, initializer=_start_worker, initargs=(self._inbox, os.getpid())
            )

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is not None:
                self._end_workers()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return `work(*a)` for each a, in order; messages go to the listener as they come."""
        if self._pool is None:
            return self._here(work, arguments)
        futures = [self._pool.submit(work, *one) for one in arguments]
        self._watch(futures)
        return [future.result() for future in futures]

    def _here(self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        global _outbox
        _outbox = _Direct(self._listener)
        one_thread()
        try:
            return [work(*one) for one in arguments]
        finally:
            _outbox = None

    def _watch(self, futures: Sequence[Future[Any]]) -> None:
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            self._drain()
            for future in done:
                future.result()
        self._drain()

    def _drain(self) -> None:
        while True:
            try:
                self._listener(self._inbox.get_nowait())
            except queue.Empty:
                return

    def _end_workers(self) -> None:
        for child in multiprocessing.active_children():
            child.terminate()


@dataclass(frozen=True, slots=True)
class _Direct:
    listener: Listener

    def put(self, message: Message) -> None:
        self.listener(message)


def one_thread() -> None:
    """Use one torch thread: two processes of one thread beat one process of two."""
    import torch

    torch.set_num_threads(1)


def _start_worker(outbox: Any, parent: int) -> None:
    global _outbox
    _outbox = outbox
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    one_thread()


def _leave(*_: object) -> None:
    """End this process at once, but hand its semaphores back: libraries make some, and left ones are warned of."""
    util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(1)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed assessment must not go on behind a resumed one."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def stopped(error: BaseException) -> Interrupted:
    """Return the error for a stop by the user."""
    return Interrupted(f"stopped ({type(error).__name__}); finished cells are kept, and the same command resumes")
