"""One association, as the acceptor (PS3.8, section 9.2): the states of its table are the places where the code waits.

| state | here |
|---|---|
| Sta2, awaiting A-ASSOCIATE-RQ under ARTIM | `_requested` under `request_seconds` |
| Sta3, awaiting the local response | `_establish`, which does not wait |
| Sta6, established | `_transfer`, each unit under `idle_seconds` |
| Sta8, awaiting the local release response | `_transfer` answers an A-RELEASE-RQ at once |
| Sta13, awaiting the transport's close under ARTIM | `_gone` |

The states of a requestor (Sta4, 5, 7, 9 to 12) do not occur: the guard asks for no release of an association that it
accepted. Whatever the table answers with AA-1, AA-7 or AA-8 is a `Violation`, which sends A-ABORT.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from titer.guard.checks.light import Claim
from titer.guard.receive import dimse, pdu
from titer.guard.receive.alarms import Alarms
from titer.guard.receive.commitment import Commitments, Committing
from titer.guard.receive.dimse import Command, Field
from titer.guard.receive.intake import NO_CLASS, Intake, Sender
from titer.guard.receive.messages import Draining, Message, Storing
from titer.guard.receive.pace import Buckets
from titer.guard.receive.pdu import ACCEPTANCE, Request, Value, Violation
from titer.guard.receive.policy import Policy
from titer.guard.receive.status import Reply, Status
from titer.guard.receive.syntaxes import COMMITMENT, answer
from titer.guard.receive.transport import fingerprint
from titer.guard.settings import DICOMSettings

_CLOSING_SECONDS = 2.0
_CLOSING_BYTES = 1 << 20
_FOUR = {pdu.RELEASE_RQ: 4, pdu.ABORT: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What all associations share."""

    settings: DICOMSettings
    policy: Policy
    intake: Intake
    pool: Executor
    buckets: Buckets
    alarms: Alarms
    commitments: Commitments
    piece_bytes: int


class Association:
    """Serves one connection until it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, desk: Desk, host: str) -> None:
        """Take the two ends of the connection, and the address that it came from."""
        self._reader, self._writer, self._desk, self._host = reader, writer, desk, host
        self._asked: Request | None = None
        self._contexts: dict[int, tuple[str, str]] = {}
        self._command = bytearray()
        self._context = 0
        self._message: tuple[Command, Message] | None = None
        self._counted = False
        self.busy = False

    @property
    def waiting(self) -> bool:
        """Whether no association is established yet."""
        return self._asked is None

    async def serve(self) -> None:
        """Serve, and leave nothing behind."""
        try:
            if await self._establish():
                await self._transfer()
        except Violation as error:
            self._desk.alarms.raise_(f"protocol violation: {error}", self._calling, self._host)
            await self._abort(error.reason)
        except TimeoutError:
            await self._abort(0)
        except (EOFError, OSError):
            pass  # the peer is gone, or its TLS broke: nobody is left to be told
        finally:
            self._end()

    async def _abort(self, reason: int) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            await self._send(pdu.abort(reason))
            await self._gone()

    def _end(self) -> None:
        if self._message:
            self._message[1].give_up()
        self._leave()
        self._writer.close()

    def _leave(self) -> None:
        """Make room for another association; an own one that only waits for its peer to close counts no more."""
        if self._asked and self._counted:
            self._counted = False
            self._desk.policy.leave(self._asked.calling_ae, self._host)

    @property
    def _calling(self) -> str:
        return self._asked.calling_ae if self._asked else ""

    async def _establish(self) -> bool:
        asked = await self._requested()
        if asked is None:
            return False
        tls = self._writer.get_extra_info("ssl_object")
        certificate = fingerprint(tls.getpeercert(binary_form=True)) if tls else None
        refusal = self._desk.policy.objection(asked, self._host, certificate)
        if refusal:
            if refusal.alarming:
                self._desk.alarms.raise_(f"association rejected: {refusal.words}", asked.calling_ae, self._host)
            await self._send(pdu.reject(refusal.result, refusal.source, refusal.reason))
            await self._gone()
            return False
        self._desk.policy.enter(asked.calling_ae, self._host)
        self._asked, self._counted = asked, True
        answers = [answer(one) for one in asked.proposals]
        for proposal, one in zip(asked.proposals, answers, strict=True):
            if one.result == ACCEPTANCE:
                self._contexts[one.number] = (proposal.abstract_syntax, one.transfer_syntax)
        await self._send(pdu.accept(asked, answers, self._desk.settings.max_pdu))
        return True

    async def _requested(self) -> Request | None:
        kind, body = await self._unit({pdu.ASSOCIATE_RQ: pdu.ASSOCIATION_BYTES, pdu.ABORT: 4}, self._request_seconds)
        return pdu.request(body) if kind == pdu.ASSOCIATE_RQ else None

    @property
    def _request_seconds(self) -> float:
        return self._desk.settings.request_seconds

    async def _unit(self, limits: dict[int, int], seconds: float) -> tuple[int, bytes]:
        """Read one unit; nothing is allocated for one that is not expected, or longer than allowed."""
        async with asyncio.timeout(seconds):
            kind, length = pdu.HEADER.unpack(await self._reader.readexactly(pdu.HEADER.size))
            if kind not in limits:
                known = pdu.ASSOCIATE_RQ <= kind <= pdu.ABORT
                reason = Violation.UNEXPECTED if known else Violation.UNRECOGNIZED
                raise Violation("a unit that is not expected", reason)
            if length > limits[kind]:
                raise Violation("a unit that is longer than allowed", Violation.INVALID_VALUE)
            return kind, await self._reader.readexactly(length)

    async def _transfer(self) -> None:
        limits = {pdu.DATA: self._desk.settings.max_pdu, **_FOUR}
        while True:
            kind, body = await self._unit(limits, self._desk.settings.idle_seconds)
            if kind == pdu.DATA:
                for value in pdu.values(body):
                    await self._take(value)
                continue
            if kind == pdu.RELEASE_RQ:
                self._leave()
                await self._send(pdu.release_reply())
                await self._gone()
            return

    async def _take(self, value: Value) -> None:
        if value.context not in self._contexts:
            raise Violation("a presentation context that was not accepted", Violation.INVALID_VALUE)
        if self._message is None:
            await self._take_command(value)
            return
        if value.command or value.context != self._context or not (value.fragment or value.last):
            raise Violation("a fragment that is not expected", Violation.INVALID_VALUE)
        command, message = self._message
        await message.add(value.fragment)
        if value.last:
            self.busy = True
            reply = await message.finish()
            self._message = None
            self._desk.intake.acknowledging()
            await self._reply(command, reply)
            self.busy = False

    async def _take_command(self, value: Value) -> None:
        if not value.command or (self._command and value.context != self._context):
            raise Violation("a fragment that is not expected", Violation.INVALID_VALUE)
        if len(self._command) + len(value.fragment) > dimse.COMMAND_BYTES or not (value.fragment or value.last):
            raise Violation("a command set that is longer than allowed", Violation.INVALID_VALUE)
        self._context = value.context
        self._command += value.fragment
        if value.last:
            command = dimse.parse(bytes(self._command))
            self._command.clear()
            await self._begin(command)

    async def _begin(self, command: Command) -> None:
        """Answer a command that has no data set, or get ready for the one that follows."""
        if command.field == Field.C_STORE_RQ:
            await self._pause()
            self._message = (command, self._object(command))
        elif command.field == Field.N_ACTION_RQ:
            self._message = (command, self._commitment(command))
        elif command.field == Field.C_ECHO_RQ:
            await self._reply(command, Reply(Status.SUCCESS))
        elif command.has_data:
            self._message = (command, Draining(self._desk.intake, Reply(Status.UNRECOGNIZED_OPERATION)))
        else:
            await self._reply(command, Reply(Status.UNRECOGNIZED_OPERATION))

    async def _pause(self) -> None:
        """Hold a peer that is faster than it may be: its sender feels a slow receiver, and loses nothing."""
        assert self._asked is not None
        peer = self._desk.policy.peer(self._asked.calling_ae)
        seconds = self._desk.buckets.of(self._asked.calling_ae, peer.objects_per_second).take()
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _object(self, command: Command) -> Message:
        abstract, transfer = self._contexts[self._context]
        claim = Claim(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=transfer,
        )
        sender = Sender(name=self._calling, address=self._host)
        refusal = self._desk.intake.objection(claim)
        if refusal is None and abstract != command.sop_class_uid:
            refusal = Reply(Status.MISMATCH, "SOP class is not that of the presentation context")
        if refusal:
            return Draining(self._desk.intake, refusal, claim, sender)
        return Storing(self._desk.intake, self._desk.pool, claim, sender, self._desk.piece_bytes)

    def _commitment(self, command: Command) -> Message:
        abstract, transfer = self._contexts[self._context]
        if command.sop_class_uid != COMMITMENT or abstract != COMMITMENT:
            return Draining(self._desk.intake, NO_CLASS)
        if command.action_type != 1:
            return Draining(self._desk.intake, Reply(Status.NO_SUCH_ACTION_TYPE))
        report = partial(self._report, self._context)
        sender = Sender(name=self._calling, address=self._host)
        return Committing(self._desk.commitments, transfer, sender, report)

    async def _report(self, context: int, event: bytes, dataset: bytes) -> bool:
        """Send an N-EVENT-REPORT on this association; False where it is no more."""
        if self._asked is None or self._writer.is_closing():
            return False
        try:
            await self._send(pdu.data(context, event, dataset, self._asked.max_length))
        except (OSError, TimeoutError):
            return False
        return True

    async def _reply(self, command: Command, reply: Reply) -> None:
        if command.field in (Field.C_CANCEL_RQ, Field.N_EVENT_REPORT_RQ | 0x8000):
            return
        assert self._asked is not None
        content = dimse.response(command, reply.status, reply.comment)
        await self._send(pdu.data(self._context, content, None, self._asked.max_length))

    async def _send(self, content: bytes) -> None:
        self._writer.write(content)
        async with asyncio.timeout(self._desk.settings.idle_seconds):
            await self._writer.drain()

    async def _gone(self) -> None:
        """Wait for the peer to close, a little while."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                left = _CLOSING_BYTES
                while left > 0 and (block := await self._reader.read(1 << 16)):
                    left -= len(block)
