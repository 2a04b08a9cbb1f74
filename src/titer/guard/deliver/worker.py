"""One thread for one destination: a peer that is slow or dead holds up nobody else's items."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.engine import Row
from sqlalchemy.exc import SQLAlchemyError

from titer.guard.context import Context
from titer.guard.deliver.breaker import Breaker, State, pause
from titer.guard.deliver.marks import Mark, write
from titer.guard.deliver.permit import Denial, denied
from titer.guard.deliver.prepare import parcel, unchanged
from titer.guard.deliver.queue import BELL, DEAD, DELIVERED, WAITING, WITHHELD
from titer.guard.deliver.sender import Changed, Parcel, Refused, Sender, Unreachable
from titer.guard.settings import DestinationSettings
from titer.guard.store.journal import NotStored
from titer.guard.store.tables import outbox

_BATCH = 16
_LOOK_SECONDS = 1.0
_HOUR = 3600.0
_REST_SECONDS = 30.0
REFUSALS = 3
"""Tries after which an item that the peer refuses is given up."""


@dataclass(frozen=True, slots=True)
class _Unwritten:
    item: Row[Any]
    mark: Mark
    done: Future[None]


class Worker:
    """Sends what is due to one destination, and marks what became of it."""

    def __init__(
        self, context: Context, destination: DestinationSettings, sender: Sender, rng: random.Random | None = None
    ) -> None:
        """Take a way to the destination; nothing is sent yet."""
        self.destination = destination
        self.trouble: str | None = None
        self._context = context
        self._sender = sender
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self.breaker = Breaker(destination, self._rng)
        self._unwritten: list[_Unwritten] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"deliver-{destination.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        self._context.bell.ring(BELL)

    def stop(self, seconds: float = 5.0) -> None:
        """Finish the item that is being sent, or break it off after a while: it is sent again after the next start."""
        self.ask_to_stop()
        self._thread.join(seconds)
        self._sender.close()
        self._thread.join()

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        heard, last = 0, time.monotonic()
        while not self._stopping.is_set():
            try:
                busy = self._round()
                self.trouble = None
            except (SQLAlchemyError, NotStored) as error:
                busy, self.trouble = False, f"the database does not work: {type(error).__name__}"
            if busy:
                last = time.monotonic()
            else:
                if time.monotonic() - last > _REST_SECONDS:
                    self._sender.rest()
                heard = self._context.bell.wait(BELL, heard, _LOOK_SECONDS)

    def _round(self) -> bool:
        """Send some items; False where there is nothing to do now.

        Their marks are written while the next one is sent. Where they cannot be written, nothing more is sent until
        they are: what the peer has would only be sent again and again.
        """
        self._write_marks()
        if self.breaker.state(self._context.clock()) is State.OPEN:
            self._stopping.wait(min(_LOOK_SECONDS, self.destination.retry_seconds))
            return False
        items = self._due()
        for item in items:
            if self._stopping.is_set():
                break
            self._unwritten.append(self._begun(item, self._tried(item)))
            if self.breaker.state(self._context.clock()) is not State.CLOSED:
                break
        self._write_marks()
        return bool(items)

    def _begun(self, item: Row[Any], mark: Mark) -> _Unwritten:
        at = self._context.clock()
        return _Unwritten(
            item, mark, self._context.journal.submit(lambda connection: write(connection, item, mark, at))
        )

    def _write_marks(self) -> None:
        """Wait for the marks that are being written; those that failed are begun anew the next time.

        Raises:
            NotStored: the database could not take one of them.
        """
        problems = [problem for one in self._unwritten if (problem := one.done.exception()) is not None]
        failed = [one for one in self._unwritten if one.done.exception() is not None]
        self._unwritten = [self._begun(one.item, one.mark) for one in failed]
        if problems:
            raise problems[0]

    def _due(self) -> list[Row[Any]]:
        """Return the next items; one due later than any pause allows was queued before a clock went back."""
        now = self._context.clock()
        latest = now + self.destination.longest_pause_seconds + _HOUR
        wanted = (
            select(outbox)
            .where(outbox.c.destination == self.destination.name, outbox.c.state == WAITING)
            .where(or_(outbox.c.due_at <= now, outbox.c.due_at > latest))
            .order_by(outbox.c.due_at, outbox.c.id)
            .limit(_BATCH)
        )
        with self._context.engine.connect() as connection:
            return list(connection.execute(wanted))

    def _tried(self, item: Row[Any]) -> Mark:
        """Try to send an item, and return what became of it."""
        try:
            with self._context.engine.connect() as connection:
                denial = denied(connection, item)
                packed = denial or parcel(self._context, connection, item)
            if isinstance(packed, Denial):
                return Mark(state=WITHHELD, reason=packed.reason, alert=packed.alert)
            return self._sent(item, packed)
        except Unreachable as error:
            self.breaker.failed(self._context.clock(), error.wait)
            return self._again(item, str(error), self.destination.attempts, self.destination.give_up_hours, error.wait)
        except Refused as error:
            self.breaker.succeeded()  # it answers
            return self._again(item, str(error), REFUSALS)
        except Changed as error:
            return Mark(state=DEAD, reason=str(error), alert=True)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - one item that cannot be written must not hold up the others
            return self._again(item, f"cannot be sent: {type(error).__name__}", REFUSALS)

    def _sent(self, item: Row[Any], packed: Parcel) -> Mark:
        note = self._sender.send(packed)
        self.breaker.succeeded()
        unchanged(item, packed)
        return Mark(state=DELIVERED, reason=note)

    def _again(self, item: Row[Any], reason: str, attempts: int, hours: float = 0.0, wait: float | None = None) -> Mark:
        """Return when an item is tried again, or that it is given up: after enough tries over enough time."""
        now = self._context.clock()
        if item.attempts + 1 >= attempts and now - item.created_at >= hours * _HOUR:
            return Mark(state=DEAD, reason=f"given up after {item.attempts + 1} tries: {reason}")
        drawn = pause(self.destination, item.attempts + 1, self._rng)
        due = now + min(max(drawn, wait or 0.0), self.destination.longest_pause_seconds)
        return Mark(state=WAITING, reason=reason, due_at=due)
