"""The process that holds one bundle, seen from the guard: questions are queued, batched, timed, and never lost.

It is started anew when it dies. A batch that fails is asked again one question at a time, so that one poisonous input
does not flag its neighbours.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from titer.guard.judge.messages import Answer, Ask, Facts, WorkerFailed, answer_of
from titer.guard.judge.runtime import Opener, open_bundle, serve
from titer.guard.settings import JudgeSettings

_SPAWN = multiprocessing.get_context("spawn")
_AGAIN_SECONDS = 10.0
"""How long a bundle that was refused is not tried again."""
_WEIGHT = 0.2


Said = tuple[Answer, Facts]
"""An answer, and the bundle of the very process that gave it (G4)."""


class _Question(NamedTuple):
    ask: Ask
    done: Future[Said]


class _Running(NamedTuple):
    process: BaseProcess
    connection: Connection
    facts: Facts


class Worker:
    """One bundle in a process of its own."""

    def __init__(self, folder: Path, settings: JudgeSettings, opener: Opener = open_bundle) -> None:
        """Take the bundle's folder; nothing is started before the first question or `start`."""
        self.folder = folder
        self._settings, self._opener = settings, opener
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._running: _Running | None = None
        self._refused: tuple[float, str] | None = None
        self._waiting = 0
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._stopped = False

    def start(self) -> None:
        """Start the thread, and load the bundle ahead of the first question."""
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name=f"worker {self.folder.name}", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the process; questions that wait fail."""
        with self._lock:
            self._stopped, thread = True, self._thread
        self._questions.put(None)
        if thread is not None:
            thread.join()
        self._end()

    def submit(self, ask: Ask) -> Future[Said]:
        """Queue a question; the future holds the answer, or WorkerFailed with the reason."""
        done: Future[Said] = Future()
        if self._stopped:
            done.set_exception(WorkerFailed("the worker was stopped"))
            return done
        self.start()
        with self._lock:
            self._waiting += 1
        self._questions.put(_Question(ask, done))
        return done

    def ask(self, ask: Ask) -> Said:
        """Ask, and wait for the answer and for who gave it.

        Raises:
            WorkerFailed: there is none: crash, time-out, memory, a damaged bundle.
        """
        return self.submit(ask).result()

    def facts(self) -> Facts | None:
        """Return which bundle is loaded, None before it is."""
        running = self._running
        return None if running is None else running.facts

    def trouble(self) -> str | None:
        """Return why it cannot answer now, None where it can or was not tried."""
        return None if self._refused is None else self._refused[1]

    @property
    def pid(self) -> int | None:
        """The process that is running, None where none is."""
        running = self._running
        return None if running is None else running.process.pid

    def delay(self) -> float:
        """Return how many seconds a question that is asked now would wait, by what the last ones took."""
        return self._waiting * self._seconds

    def _run(self) -> None:
        self._ready_or_refused()
        open_ = True
        while open_:
            batch, open_ = self._batch()
            if batch:
                self._answer(batch)
                with self._lock:
                    self._waiting -= len(batch)
        while not self._questions.empty():
            left = self._questions.get()
            if left is not None:
                left.done.set_exception(WorkerFailed("the worker was stopped"))

    def _ready_or_refused(self) -> None:
        try:
            self._ready()
        except WorkerFailed:
            return  # whoever asks is told, and `trouble` says it

    def _batch(self) -> tuple[list[_Question], bool]:
        """Wait for a question; those that came meanwhile, and those that come within the window, go with it."""
        first = self._questions.get()
        if first is None:
            return [], False
        batch, until = [first], time.monotonic() + self._settings.batch_ms / 1000
        while len(batch) < self._settings.batch:
            try:
                left = until - time.monotonic()
                following = self._questions.get(timeout=left) if left > 0 else self._questions.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return batch, False
            batch.append(following)
        return batch, True

    def _answer(self, batch: Sequence[_Question]) -> None:
        began = time.monotonic()
        try:
            facts, answers = self._exchange([one.ask for one in batch])
        except WorkerFailed as reason:
            if len(batch) > 1:
                for one in batch:
                    self._answer([one])
                return
            batch[0].done.set_exception(reason)
            return
        self._seconds += _WEIGHT * ((time.monotonic() - began) / len(batch) - self._seconds)
        for one, found in zip(batch, answers, strict=True):
            if isinstance(found, WorkerFailed):
                one.done.set_exception(found)
            else:
                one.done.set_result((found, facts))

    def _exchange(self, asks: Sequence[Ask]) -> tuple[Facts, list[Answer | WorkerFailed]]:
        running = self._ready()
        try:
            running.connection.send(list(asks))
            if not running.connection.poll(self._settings.timeout_seconds):
                self._end()
                raise WorkerFailed(f"no answer within {self._settings.timeout_seconds:g} s")
            answers = answer_of(running.connection.recv_bytes())
        except (EOFError, OSError):
            raise WorkerFailed(f"the process ended ({self._end()})") from None
        if len(answers) != len(asks):
            self._end()
            raise WorkerFailed("the worker's answer is damaged")
        return running.facts, answers

    def _ready(self) -> _Running:
        if self._running is not None and self._running.process.is_alive():
            return self._running
        if self._refused is not None and time.monotonic() < self._refused[0]:
            raise WorkerFailed(self._refused[1])
        self._end()
        try:
            self._running = self._spawned()
        except WorkerFailed as reason:
            self._refused = (time.monotonic() + _AGAIN_SECONDS, str(reason))
            raise
        self._refused = None
        return self._running

    def _spawned(self) -> _Running:
        ours, theirs = _SPAWN.Pipe()
        arguments = (theirs, self._opener, self.folder, self._settings.memory_mib)
        process = _SPAWN.Process(target=serve, args=arguments, name=f"model {self.folder.name}", daemon=True)
        process.start()
        theirs.close()
        try:
            said = ours.recv_bytes() if ours.poll(self._settings.start_seconds) else b'{"refused": "it does not start"}'
            found = json.loads(said)
            if "facts" in found:
                listed = {key: tuple(value) for key, value in found["facts"].items() if isinstance(value, list)}
                return _Running(process, ours, Facts(**(found["facts"] | listed)))
            reason = str(found["refused"])
        except (EOFError, OSError, ValueError, TypeError, KeyError):
            reason = "the process ended while it loaded the bundle"
        _ended(process)
        ours.close()
        raise WorkerFailed(reason)

    def _end(self) -> str:
        """End the process, and say how it ended."""
        running, self._running = self._running, None
        if running is None:
            return "before"
        running.connection.close()
        return _ended(running.process)


def _ended(process: BaseProcess) -> str:
    process.join(0.2)
    if process.is_alive():
        process.kill()
    process.join()
    code = process.exitcode or 0
    return f"signal {-code}" if code < 0 else f"status {code}"
