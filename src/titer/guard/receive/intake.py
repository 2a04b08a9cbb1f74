"""From a part to an acknowledged object: light check, disk, journal, and only then success (G1).

C-STORE and STOW-RS share it. It runs in worker threads: nothing of it in the thread that serves the network.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from titer.guard.checks.light import Claim, Header, Mismatch, light
from titer.guard.checks.walk import TRANSFER_SYNTAXES, Unreadable
from titer.guard.context import Context
from titer.guard.keys import pseudonym
from titer.guard.receive.entry import Entry, Refusal, refused
from titer.guard.receive.quota import Quotas
from titer.guard.receive.spool import Part, Spool, TooLarge, settle_folder
from titer.guard.receive.status import Reply, Status
from titer.guard.receive.syntaxes import is_storage
from titer.guard.records import Received
from titer.guard.store.journal import NotStored
from titer.guard.store.tables import objects

BELL = "objects"
_KEPT = select(objects.c.digest, objects.c.path).where(objects.c.state != "deleted").order_by(objects.c.digest)
_MiB = 1 << 20
_LOG = logging.getLogger(__name__)
DISK_FULL = Reply(Status.OUT_OF_RESOURCES, "disk too full")
NO_DISK = Reply(Status.OUT_OF_RESOURCES, "disk does not take it")
OVER_QUOTA = Reply(Status.OUT_OF_RESOURCES, "daily quota of this sender is spent")
NO_JOURNAL = Reply(Status.OUT_OF_RESOURCES, "journal does not take it")
TOO_LARGE = Reply(Status.OUT_OF_RESOURCES, "object too large")
NO_CLASS = Reply(Status.CLASS_NOT_SUPPORTED, "not a storage SOP class that is received")
NO_SYNTAX = Reply(Status.CANNOT_UNDERSTAND, "transfer syntax that is not received")
NO_ROUTE = Reply(Status.NOT_AUTHORIZED, "no route takes this modality from this sender")
FAILED = Reply(Status.PROCESSING_FAILURE, "internal error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends: an application entity or an account, and its network address."""

    name: str
    address: str


class DiskFull(OSError):  # noqa: N818 - says what happened
    """Less is free than the settings ask for."""


def told(error: OSError | TooLarge) -> Reply:
    """Return what a sender is told of an object that could not be written."""
    if isinstance(error, TooLarge):
        return TOO_LARGE
    _LOG.error("an object was not stored: %s", error.strerror)
    return DISK_FULL if isinstance(error, DiskFull) else NO_DISK


def no_fault(_point: str) -> None:
    """No fault: what production has."""


class Intake:
    """Takes objects in."""

    def __init__(self, context: Context, faults: Callable[[str], None] = no_fault) -> None:
        """Make the spool's folders.

        Args:
            context: of the guard.
            faults: called at part, fsync, rename, journal and ack, where a test may end the process.
        """
        self._context = context
        self._faults = faults
        self.most_bytes = context.settings.dicom.max_object_mib * _MiB
        self.spool = Spool(context.home.spool, context.settings.spool.free_mib)
        self.quotas = Quotas(context)

    def objection(self, claim: Claim) -> Reply | None:
        """Return why an object of this claim is refused before a byte of it is read; None where it is not."""
        if not is_storage(claim.sop_class_uid):
            return NO_CLASS
        return None if claim.transfer_syntax_uid in TRANSFER_SYNTAXES else NO_SYNTAX

    def part(self, claim: Claim) -> Part:
        """Begin an object."""
        return Part(self.spool.incoming, claim, self.most_bytes)

    def append(self, part: Part, content: bytes | bytearray) -> None:
        """Write a piece of an object; OSError where the disk does not take it, TooLarge past the cap."""
        if part.size == 0 and self.spool.full():
            raise DiskFull(errno.ENOSPC, "disk too full")
        part.append(content)

    def store(self, part: Part, rest: bytes | bytearray, claim: Claim, sender: Sender) -> Future[Reply]:
        """Write the last piece, check and store; the future is done when the reply may be sent."""
        whole = rest if part.size == 0 else None  # an object of one piece need not be read back
        try:
            self.append(part, rest)
            return self._store(part, claim, sender, whole)
        except (OSError, TooLarge) as error:
            part.discard()
            return self.refuse(told(error), claim, sender)
        except BaseException:
            part.discard()
            raise

    def _store(self, part: Part, claim: Claim, sender: Sender, whole: bytes | bytearray | None) -> Future[Reply]:
        self._faults("part")
        try:
            header, pixels = _checked(part, claim, whole)
        except (Mismatch, Unreadable) as error:
            part.discard()
            status = Status.MISMATCH if isinstance(error, Mismatch) else Status.CANNOT_UNDERSTAND
            return self.refuse(Reply(status, str(error)), claim, sender)
        route = self._context.settings.route(header.modality, sender.name)
        if route is None:
            part.discard()
            return self.refuse(NO_ROUTE, claim, sender)
        if not self.quotas.take(sender.name[:16], part.size):
            part.discard()
            return self.refuse(OVER_QUOTA, claim, sender)
        return self._enter(part, self._received(part, claim, header, pixels, sender, route.name))

    def _enter(self, part: Part, received: Received) -> Future[Reply]:
        part.settle()
        self._faults("fsync")
        part.keep(received.path)
        self._faults("rename")
        entry = Entry(received, quarantine=self._context.home.quarantine)
        written = self._context.journal.submit(entry.write)
        settle_folder(received.path.parent)  # while the journal commits: both must be done before the reply
        return self._when_durable(written)

    def _when_durable(self, written: Future[Reply]) -> Future[Reply]:
        reply: Future[Reply] = Future()

        def done(future: Future[Reply]) -> None:
            """Runs after the commit, mostly in the journal's thread."""
            error = future.exception()
            self._faults("journal")
            if error is None:
                self._context.bell.ring(BELL)
                reply.set_result(future.result())
                return
            expected = isinstance(error, NotStored | SQLAlchemyError)
            _LOG.error(
                "an object was not recorded: %s", error if isinstance(error, NotStored) else type(error).__name__
            )
            reply.set_result(NO_JOURNAL if expected else FAILED)

        written.add_done_callback(done)
        return reply

    def _received(
        self, part: Part, claim: Claim, header: Header, pixels: str | None, sender: Sender, route: str
    ) -> Received:
        return Received(
            sop_instance_uid=claim.sop_instance_uid,
            sop_class_uid=claim.sop_class_uid,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            transfer_syntax_uid=claim.transfer_syntax_uid,
            digest=part.digest,
            pixel_digest=pixels,
            patient=self._pseudonym(header),
            modality=header.modality,
            size=part.size,
            path=self.spool.place(part.digest),
            route=route,
            calling_ae=sender.name[:16],
            peer=sender.address[:64],
            received_at=self._context.clock(),
        )

    def _pseudonym(self, header: Header) -> str | None:
        """Return the keyed digest of the patient, None where the object names none; checks.identity makes the same."""
        return pseudonym(self._context.identity, header.patient_id, header.issuer) if header.patient_id else None

    def acknowledging(self) -> None:
        """Say that the reply leaves now."""
        self._faults("ack")

    def refuse(self, reply: Reply, claim: Claim, sender: Sender) -> Future[Reply]:
        """Record a refusal; the reply is the same where the journal does not take it."""
        answered: Future[Reply] = Future()
        event = refused(Refusal(reply=reply, claim=claim, sender=(sender.name, sender.address)), self._context.clock())
        written = self._context.journal.submit(event)
        written.add_done_callback(lambda _future: answered.set_result(reply))
        return answered

    def recover(self) -> list[str]:
        """Bring disk and database together after a stop of whatever kind; returns what an administrator must know.

        A `.part` file, and a file that no row records, were never acknowledged: they are removed. A row whose file is
        gone is reported, and left.
        """
        with self._context.engine.connect() as connection:
            found = connection.execution_options(yield_per=1000).execute(_KEPT)
            for path in list(self.spool.strays(row.digest for row in found)):
                path.unlink(missing_ok=True)
        missing = self._missing()
        self.spool.sweep(missing)
        if missing:  # looked at twice: the judge may have moved one meanwhile
            missing = dict(missing.items() & self._missing().items())
        return [f"object {digest[:16]}: its row stands, its file is gone" for digest in sorted(missing)]

    def _missing(self) -> dict[str, str]:
        """Return digest and path of the rows whose files are not there."""
        with self._context.engine.connect() as connection:
            found = connection.execution_options(yield_per=1000).execute(_KEPT)
            return {row.digest: row.path for row in found if not Path(row.path).is_file()}


def _checked(part: Part, claim: Claim, whole: bytes | bytearray | None) -> tuple[Header, str | None]:
    """Return header and digest of the pixel data; `whole` is the data set where it is in memory."""
    if part.size <= part.start:
        raise Unreadable("no data set")
    if whole is not None:
        return _read(whole, 0, claim)
    with part.content() as content:
        return _read(content, part.start, claim)


def _read(content: bytes | bytearray | mmap, start: int, claim: Claim) -> tuple[Header, str | None]:
    header = light(content, start, claim)
    if header.pixels is None:
        return header, None
    with memoryview(content) as view, view[slice(*header.pixels)] as pixels:
        return header, hashlib.sha256(pixels).hexdigest()
