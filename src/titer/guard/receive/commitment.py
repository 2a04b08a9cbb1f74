"""Storage commitment (PS3.4, annex J): the guard commits to an object once it is where its route sends it.

A modality may delete what was committed, and the guard keeps objects for days only: so an object whose route names
destinations is committed when each of them has it, and one that is blocked never is. Requests are kept on disk until
their report went out, on the association of the request while that lives, else on one to the peer's address.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, Sequence
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from sqlalchemy import Connection, select

from titer.guard.checks.light import valid_uid
from titer.guard.context import Context
from titer.guard.receive import dimse
from titer.guard.receive.intake import FAILED, Sender
from titer.guard.receive.messages import Gathering
from titer.guard.receive.peer import send_report
from titer.guard.receive.policy import Policy
from titer.guard.receive.status import Reply, Status
from titer.guard.receive.syntaxes import COMMITMENT, COMMITMENT_INSTANCE
from titer.guard.store.tables import objects, outbox

FOLDER = "commitments"
_IMPLICIT = "1.2.840.10008.1.2"
_LOOK_SECONDS, _TRY_SECONDS, _LAST_SECONDS = 0.2, 5.0, 600.0
_ALL, _SOME = 1, 2
_OBJECT, _DELIVERED, _DEAD = "object", "delivered", "dead"  # as deliver.queue writes them
_QUARANTINED, _DELETED = "quarantined", "deleted"
_LOG = logging.getLogger(__name__)
Report = Callable[[bytes, bytes], Awaitable[bool]]
References = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What a peer asks to be committed: (SOP class, SOP instance) UIDs."""

    transaction_uid: str
    references: References
    peer: str
    transfer_syntax: str
    file: Path

    def keep(self) -> None:
        """Write it down."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = {"uid": self.transaction_uid, "references": self.references, "peer": self.peer}
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(line))
        part.replace(self.file)


def parse(content: bytes, transfer_syntax: str, sender: Sender, folder: Path) -> Transaction:
    """Read the data set of an N-ACTION; ValueError where it is none."""
    try:
        dataset = read_dataset(BytesIO(content), transfer_syntax == _IMPLICIT, True)
        uid = str(dataset.TransactionUID)
        references = tuple(
            (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID)) for one in dataset.ReferencedSOPSequence
        )
    except Exception as error:  # pydicom raises whatever a broken data set leads it to
        raise ValueError("no data set of a storage commitment request") from error
    if not references or not all(valid_uid(one) for one in (uid, *(part for pair in references for part in pair))):
        raise ValueError("a storage commitment request without UIDs")
    file = folder / f"{uuid.uuid4().hex}.json"
    return Transaction(
        transaction_uid=uid, references=references, peer=sender.name, transfer_syntax=transfer_syntax, file=file
    )


class Committing:
    """The data set of an N-ACTION."""

    def __init__(self, commitments: Commitments, transfer_syntax: str, sender: Sender, report: Report) -> None:
        """Begin with nothing."""
        self._commitments, self._syntax, self._sender, self._report = commitments, transfer_syntax, sender, report
        self._gathered = Gathering()

    async def add(self, fragment: memoryview) -> None:
        """Take a fragment."""
        await self._gathered.add(fragment)

    async def finish(self) -> Reply:
        """Return success once the request is written down."""
        return await self._commitments.take(bytes(self._gathered.content), self._syntax, self._sender, self._report)

    def give_up(self) -> None:
        """Nothing is left behind."""


class Commitments:
    """Requests that wait for their report."""

    def __init__(self, context: Context, pool: Executor, policy: Policy) -> None:
        """Begin with those that an earlier run left, once `resume` is called."""
        self._context, self._pool, self._policy = context, pool, policy
        self._folder = context.home.spool / FOLDER
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, content: bytes, transfer_syntax: str, sender: Sender, report: Report) -> Reply:
        """Take a request, and follow it."""
        loop = asyncio.get_running_loop()
        try:
            asked = await loop.run_in_executor(self._pool, parse, content, transfer_syntax, sender, self._folder)
            await loop.run_in_executor(self._pool, asked.keep)
        except ValueError as error:
            return Reply(Status.CANNOT_UNDERSTAND, str(error))
        except OSError:
            return FAILED
        self._follow(asked, report)
        return Reply(Status.SUCCESS)

    def resume(self) -> None:
        """Follow the requests that were written down and have no report yet."""
        for file in self._folder.glob("*.json"):
            try:
                line = json.loads(file.read_text())
                asked = Transaction(
                    transaction_uid=line["uid"],
                    references=tuple((pair[0], pair[1]) for pair in line["references"]),
                    peer=line["peer"],
                    transfer_syntax=_IMPLICIT,
                    file=file,
                )
            except (OSError, ValueError, LookupError, TypeError):
                _LOG.error("a request for storage commitment cannot be read: %s", file.name)
                continue
            self._follow(asked, _nobody)

    def cancel(self) -> None:
        """Stop following; what is written down is followed by the next run."""
        for task in self._tasks:
            task.cancel()

    def _follow(self, asked: Transaction, report: Report) -> None:
        task = asyncio.get_running_loop().create_task(self._run(asked, report))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, asked: Transaction, report: Report) -> None:
        loop, end = asyncio.get_running_loop(), time.monotonic() + _LAST_SECONDS
        await asyncio.sleep(_LOOK_SECONDS)
        while (failed := await loop.run_in_executor(self._pool, self._failures, asked, time.monotonic() > end)) is None:
            await asyncio.sleep(_LOOK_SECONDS)
        event, dataset = event_of(asked, failed)
        if not await report(event, dataset):
            await self._call_back(asked, failed, end)
        await loop.run_in_executor(self._pool, lambda: asked.file.unlink(missing_ok=True))

    async def _call_back(self, asked: Transaction, failed: dict[str, Status], end: float) -> None:
        """Open an association to the peer, until it takes the report or the time is over."""
        loop, peer = asyncio.get_running_loop(), self._policy.peer(asked.peer)
        information = dataset_of(asked, failed)
        kind = _SOME if failed else _ALL
        while peer.address and ":" in peer.address and time.monotonic() < end:
            title = self._context.settings.dicom.ae_title
            if await loop.run_in_executor(self._pool, send_report, title, peer, kind, information):
                return
            await asyncio.sleep(_TRY_SECONDS)
        _LOG.error("a report of storage commitment reached nobody: %s has no HOST:PORT, or did not answer", asked.peer)

    def _failures(self, asked: Transaction, late: bool) -> dict[str, Status] | None:
        """Return what is not committed and why; None where it is not known yet, and there is still time."""
        failed: dict[str, Status] = {}
        with self._context.engine.connect() as connection:
            for sop_class, sop_instance in asked.references:
                reason = self._reason(connection, sop_class, sop_instance)
                if reason == Status.PENDING:
                    if not late:
                        return None
                    reason = Status.PROCESSING_FAILURE
                if reason != Status.SUCCESS:
                    failed[sop_instance] = reason
        return failed

    def _reason(self, connection: Connection, sop_class: str, sop_instance: str) -> Status:
        row = connection.execute(
            select(objects).where(objects.c.sop_instance_uid == sop_instance).order_by(objects.c.id)
        ).first()
        if row is None:
            return Status.NO_SUCH_OBJECT_INSTANCE
        if row.sop_class_uid != sop_class:
            return Status.CLASS_INSTANCE_CONFLICT
        if row.state == _QUARANTINED:
            return Status.PROCESSING_FAILURE
        wanted = {name for route in self._context.settings.routes if route.name == row.route for name in route.images}
        if not wanted:
            kept = row.state != _DELETED and Path(row.path).is_file()
            return Status.SUCCESS if kept else Status.NO_SUCH_OBJECT_INSTANCE
        sent = {one.destination: one.state for one in self._sent(connection, row.digest)}
        if any(sent.get(name) == _DEAD for name in wanted):
            return Status.PROCESSING_FAILURE
        return Status.SUCCESS if all(sent.get(name) == _DELIVERED for name in wanted) else Status.PENDING

    def _sent(self, connection: Connection, digest: str) -> Iterator[Any]:
        columns = select(outbox.c.destination, outbox.c.state)
        return iter(connection.execute(columns.where(outbox.c.kind == _OBJECT, outbox.c.digest == digest)).all())


async def _nobody(_event: bytes, _dataset: bytes) -> bool:
    return False


def dataset_of(asked: Transaction, failed: dict[str, Status]) -> Dataset:
    """Return the event information of a report (PS3.4, table J.3-2)."""
    dataset = Dataset()
    dataset.TransactionUID = asked.transaction_uid
    good = [pair for pair in asked.references if pair[1] not in failed]
    bad = [pair for pair in asked.references if pair[1] in failed]
    if good:
        dataset.ReferencedSOPSequence = Sequence([_reference(*pair) for pair in good])
    if bad:
        dataset.FailedSOPSequence = Sequence([_reference(*pair, failed[pair[1]]) for pair in bad])
    return dataset


def event_of(asked: Transaction, failed: dict[str, Status]) -> tuple[bytes, bytes]:
    """Return command set and data set of an N-EVENT-REPORT."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, asked.transfer_syntax == _IMPLICIT
    write_dataset(stream, dataset_of(asked, failed))
    event = dimse.event_report(COMMITMENT, COMMITMENT_INSTANCE, 1, _SOME if failed else _ALL)
    return event, stream.getvalue()


def _reference(sop_class: str, sop_instance: str, reason: Status | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if reason is not None:
        item.FailureReason = int(reason)
    return item
