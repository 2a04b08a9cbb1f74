"""STOW-RS: objects that come over HTTP (PS3.18, section 10.5), by the same way to disk and journal as C-STORE."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from titer.guard.checks.light import Claim
from titer.guard.checks.walk import Unreadable
from titer.guard.receive import multipart
from titer.guard.receive.intake import Intake, Sender, told
from titer.guard.receive.part10 import META_BYTES, head
from titer.guard.receive.spool import Part, TooLarge
from titer.guard.receive.status import Reply, Status

DICOM = "application/dicom"
_PIECE_BYTES = 1 << 20
_MOST_OBJECTS = 10_000
_NOT_DICOM = Reply(Status.CANNOT_UNDERSTAND, "not a DICOM file")


class TooMuch(Exception):  # noqa: N818 - says what happened
    """The request is longer than the settings allow."""


@dataclass(slots=True)
class Outcome:
    """What became of the objects of one request: (SOP class UID, SOP instance UID, reply); no UIDs where unread."""

    objects: list[tuple[str, str, Reply]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The response's status (PS3.18, table 10.5.3-1)."""
        good = sum(reply.stored for _class, _instance, reply in self.objects)
        if good == len(self.objects):
            return 200 if good else 400
        if good:
            return 202
        full = all(reply.status == Status.OUT_OF_RESOURCES for _class, _instance, reply in self.objects)
        return 503 if full else 409

    def dataset(self, studies_url: str) -> dict[str, Any]:
        """Return the Store Instances Response module in DICOM JSON (PS3.18, annex I.2)."""
        stored, failed, unread = [], [], []
        for sop_class, instance, reply in self.objects:
            item: dict[str, Any] = {"00081150": _value("UI", sop_class), "00081155": _value("UI", instance)}
            if reply.stored:
                stored.append(item)
            elif instance:
                failed.append({**item, "00081197": _value("US", int(reply.status))})
            else:
                unread.append({"00081197": _value("US", int(reply.status))})
        out: dict[str, Any] = {"00081190": _value("UR", studies_url)}
        for tag, items in (("00081199", stored), ("00081198", failed), ("0008119A", unread)):
            if items:
                out[tag] = {"vr": "SQ", "Value": items}
        return out


def _value(kind: str, value: str | int) -> dict[str, Any]:
    return {"vr": kind, "Value": [value]}


class _Upload:
    """One object of a request."""

    def __init__(self, intake: Intake, sender: Sender, study: str | None) -> None:
        self._intake, self._sender, self._study = intake, sender, study
        self._piece = bytearray()
        self._claim: Claim | None = None
        self._part: Part | None = None
        self._failed: Reply | None = None

    async def add(self, block: bytes) -> None:
        """Take a piece; after a failure the rest is drained."""
        if self._failed:
            return
        self._piece += block
        if self._claim is None:
            self._begin()
        if self._part and len(self._piece) >= _PIECE_BYTES:
            piece, self._piece = self._piece, bytearray()
            try:
                await asyncio.to_thread(self._intake.append, self._part, piece)
            except (OSError, TooLarge) as error:
                self._fail(told(error))

    def _begin(self) -> None:
        try:
            found = head(self._piece)
        except Unreadable as error:
            self._fail(Reply(Status.CANNOT_UNDERSTAND, str(error)))
            return
        if found is None:
            if len(self._piece) > 2 * META_BYTES:
                self._fail(_NOT_DICOM)
            return
        self._claim = replace(found[0], study_instance_uid=self._study)
        objection = self._intake.objection(self._claim)
        if objection:
            self._fail(objection)
            return
        del self._piece[: found[1]]
        self._part = self._intake.part(self._claim)

    def _fail(self, reply: Reply) -> None:
        self._failed = reply
        self._piece = bytearray()
        self.give_up()

    async def finish(self) -> tuple[str, str, Reply]:
        """Return when the object is durable, or why it is not."""
        if self._claim is None or self._part is None or self._failed:
            return await self._refused(self._failed or _NOT_DICOM)
        stored = await asyncio.to_thread(self._intake.store, self._part, self._piece, self._claim, self._sender)
        reply = await asyncio.wrap_future(stored)
        return self._claim.sop_class_uid, self._claim.sop_instance_uid, reply

    async def _refused(self, reply: Reply) -> tuple[str, str, Reply]:
        claim = self._claim or Claim(sop_class_uid="", sop_instance_uid="", transfer_syntax_uid="")
        reply = await asyncio.wrap_future(self._intake.refuse(reply, claim, self._sender))
        return claim.sop_class_uid, claim.sop_instance_uid, reply

    def give_up(self) -> None:
        """Leave nothing behind."""
        if self._part:
            self._part.discard()


async def store(
    stream: AsyncIterator[bytes], boundary: str, intake: Intake, sender: Sender, study: str | None, most_bytes: int
) -> Outcome:
    """Store the objects of a request's body.

    Args:
        stream: the body.
        boundary: between its parts.
        intake: where objects go.
        sender: the account, and the address that it comes from.
        study: Study Instance UID that all objects must have; None: any.
        most_bytes: longest body.

    Raises:
        Garbled: the body is no multipart; what came before is stored, and is not told.
        TooMuch: the body is too long, or has too many parts.
    """
    outcome, upload = Outcome(), None
    try:
        async for event in multipart.events(_counted(stream, most_bytes), boundary):
            if isinstance(event, multipart.Begin):
                upload = _Upload(intake, sender, study)
                if len(outcome.objects) == _MOST_OBJECTS:
                    raise TooMuch
            elif upload is not None and isinstance(event, bytes):
                await upload.add(event)
            elif upload is not None:
                outcome.objects.append(await upload.finish())
                upload = None
    finally:
        if upload is not None:
            await asyncio.to_thread(upload.give_up)
    return outcome


async def _counted(stream: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    total = 0
    async for block in stream:
        total += len(block)
        if total > most:
            raise TooMuch
        yield block
