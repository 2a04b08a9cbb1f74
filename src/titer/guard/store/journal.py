"""The journal: every write of the guard, many in one commit, each acknowledged only when it is durable (G1)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from titer.core.errors import TiterError
from titer.guard.store.database import WRITES

T = TypeVar("T")
_MOST = 64


class NotStored(TiterError):  # noqa: N818 - says what happened
    """The database could not take a write (full, locked, away): nothing is stored, and the sender has to be told."""


@dataclass(frozen=True, slots=True)
class _Entry:
    step: Callable[[Connection], Any]
    done: Future[Any]


class Journal:
    """One thread that writes; callers wait for the commit that holds their rows.

    What many threads write at once shares one commit, and with it one fsync. Each step runs in a savepoint of its own:
    one that fails takes nothing of the others with it.
    """

    def __init__(self, engine: Engine) -> None:
        """Start the thread."""
        self._engine = engine
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, step: Callable[[Connection], T]) -> Future[T]:
        """Queue a step; the future is done when the step's rows are durable, or holds why they are not.

        Raises:
            NotStored: (in the future) the database could not commit. Whatever the step itself raises comes out too.
        """
        done: Future[T] = Future()
        self._entries.put(_Entry(step, done))
        return done

    def write(self, step: Callable[[Connection], T]) -> T:
        """Run a step and return what it returns, once it is durable."""
        return self.submit(step).result()

    def close(self) -> None:
        """Write what is queued, and end the thread."""
        self._entries.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._batch()
            if batch:
                self._commit(batch)

    def _batch(self) -> tuple[list[_Entry], bool]:
        """Wait for one entry, and take those that came meanwhile."""
        batch: list[_Entry] = []
        entry = self._entries.get()
        while entry is not None:
            batch.append(entry)
            if len(batch) == _MOST or self._entries.empty():
                return batch, True
            entry = self._entries.get()
        return batch, False

    def _commit(self, batch: list[_Entry]) -> None:
        results: list[tuple[_Entry, Any, BaseException | None]] = []
        try:
            with self._engine.connect().execution_options(**WRITES) as connection, connection.begin():
                results = [(entry, *_tried(connection, entry.step)) for entry in batch]
        except (SQLAlchemyError, OSError) as error:
            results = [(entry, None, NotStored(f"the database could not commit: {_kind(error)}")) for entry in batch]
        for entry, value, problem in results:
            if problem is None:
                entry.done.set_result(value)
            else:
                entry.done.set_exception(problem)


def _tried(connection: Connection, step: Callable[[Connection], Any]) -> tuple[Any, BaseException | None]:
    connection.exec_driver_sql("SAVEPOINT step")
    try:
        value = step(connection)
    except Exception as error:  # noqa: BLE001 - whatever a step raises belongs to its caller, not to the batch
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT step")
        connection.exec_driver_sql("RELEASE SAVEPOINT step")
        return None, error
    connection.exec_driver_sql("RELEASE SAVEPOINT step")
    return value, None


def _kind(error: BaseException) -> str:
    """Name a database's error without its parameters, which may hold identities."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}".rstrip(": ")
