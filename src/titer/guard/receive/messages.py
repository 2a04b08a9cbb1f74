"""What becomes of the data set of a message while it comes in: stored, kept in memory, or drained."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future
from functools import partial
from typing import Protocol

from titer.guard.checks.light import Claim
from titer.guard.receive.intake import Intake, Sender, told
from titer.guard.receive.pdu import Violation
from titer.guard.receive.spool import TooLarge
from titer.guard.receive.status import Reply

MEMORY_BYTES = 1 << 20
"""Longest data set that is kept in memory: one of storage commitment names some ten thousand objects in it."""
TOO_LONG = "a data set that is longer than is taken"


class Message(Protocol):
    """Takes the fragments of a data set."""

    async def add(self, fragment: memoryview) -> None:
        """Take one; Violation where the data set gets too long."""

    async def finish(self) -> Reply:
        """Return the reply once the last fragment was taken and whatever follows from it is durable."""

    def give_up(self) -> None:
        """Leave nothing behind of a data set that will not be finished."""


class Storing:
    """The object of a C-STORE: gathered in pieces, each written by a worker thread while the network waits."""

    def __init__(self, intake: Intake, pool: Executor, claim: Claim, sender: Sender, piece_bytes: int) -> None:
        """Begin an object; nothing is written before a whole piece is there."""
        self._intake, self._pool, self._claim, self._sender = intake, pool, claim, sender
        self._piece_bytes = piece_bytes
        self._part = intake.part(claim)
        self._piece = bytearray()
        self._size = 0
        self._failed: Reply | None = None

    async def add(self, fragment: memoryview) -> None:
        """Take a fragment; after a failure of the disk the rest is drained, and finish() says why."""
        self._size += len(fragment)
        if self._size > self._intake.most_bytes:
            raise Violation(TOO_LONG, Violation.INVALID_VALUE)
        if self._failed:
            return
        self._piece += fragment
        if len(self._piece) >= self._piece_bytes:
            piece, self._piece = self._piece, bytearray()
            await self._write(piece)

    async def _write(self, piece: bytearray) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pool, self._intake.append, self._part, piece)
        except (OSError, TooLarge) as error:
            self._failed = told(error)
            self._part.discard()

    async def finish(self) -> Reply:
        """Return when the object is durable, or why it is not."""
        if self._failed:
            return await asyncio.wrap_future(self._intake.refuse(self._failed, self._claim, self._sender))
        rest, self._piece = self._piece, bytearray()
        answered: Future[Reply] = Future()
        answered.set_running_or_notify_cancel()  # whoever waits may go: what is begun is finished all the same
        self._pool.submit(self._store, rest, answered)
        return await asyncio.wrap_future(answered)

    def _store(self, rest: bytearray, answered: Future[Reply]) -> None:
        """Store in a worker thread; the network's thread is woken once, when the object is durable."""
        try:
            stored = self._intake.store(self._part, rest, self._claim, self._sender)
        except BaseException as error:  # noqa: BLE001 - it belongs to who waits
            answered.set_exception(error)
        else:
            stored.add_done_callback(partial(_hand_on, answered))

    def give_up(self) -> None:
        """Remove the part."""
        self._part.discard()


def _hand_on(answered: Future[Reply], done: Future[Reply]) -> None:
    if (error := done.exception()) is not None:
        answered.set_exception(error)
    else:
        answered.set_result(done.result())


class Draining:
    """A data set that is not wanted: read, counted, forgotten."""

    def __init__(self, intake: Intake, reply: Reply, claim: Claim | None = None, sender: Sender | None = None) -> None:
        """Take the reply; with a claim and a sender the refusal is recorded."""
        self._intake, self._reply, self._claim, self._sender = intake, reply, claim, sender
        self._size = 0

    async def add(self, fragment: memoryview) -> None:
        """Count a fragment."""
        self._size += len(fragment)
        if self._size > self._intake.most_bytes:
            raise Violation(TOO_LONG, Violation.INVALID_VALUE)

    async def finish(self) -> Reply:
        """Return the reply that was known from the start."""
        if self._claim is not None and self._sender is not None:
            return await asyncio.wrap_future(self._intake.refuse(self._reply, self._claim, self._sender))
        return self._reply

    def give_up(self) -> None:
        """Nothing is left behind."""


class Gathering:
    """A short data set in memory."""

    def __init__(self) -> None:
        """Begin empty."""
        self.content = bytearray()

    async def add(self, fragment: memoryview) -> None:
        """Take a fragment."""
        if len(self.content) + len(fragment) > MEMORY_BYTES:
            raise Violation(TOO_LONG, Violation.INVALID_VALUE)
        self.content += fragment
