"""What the journal writes of an object that came in: its row, its series, and the audit row, in one transaction.

The first content that came under a SOP Instance UID owns it. The same bytes again are a success without a second row;
other bytes are an identity conflict: refused, kept in quarantine as evidence, and held for review. Nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, bindparam, func, insert, select, update

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.checks.light import Claim
from titer.guard.receive.status import STORED, Reply, Status
from titer.guard.records import Finding, Outcome, Received
from titer.guard.store.prepared import Prepared
from titer.guard.store.tables import findings, objects, series, verdicts

CONFLICT = Reply(Status.IDENTITY_CONFLICT, "SOP Instance UID is known with other content")
RULE = "same-uid-other-content"
_DELETED, _QUARANTINED = "deleted", "quarantined"
# Statements are made once: to build one costs more than to run it.
_KNOWN = Prepared(
    select(objects.c.id, objects.c.digest, objects.c.state, objects.c.path)
    .where(objects.c.sop_instance_uid == bindparam("uid"))
    .order_by(objects.c.id)
)
_ADD = Prepared(insert(objects), [column.name for column in objects.c if column.name != "id"])
_COUNT = Prepared(
    update(series)
    .where(series.c.series_instance_uid == bindparam("mine"))
    .values(objects=series.c.objects + 1, last_at=bindparam("at"), state="open")
)


class _Known(NamedTuple):
    """A row of an object that came before."""

    id: int
    digest: str
    state: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An object that was not taken; `sender` is name and address."""

    reply: Reply
    claim: Claim
    sender: tuple[str, str]


def refused(refusal: Refusal, at: float) -> Callable[[Connection], int]:
    """Return the step that records a refusal."""
    event = audit_event(
        Kind.TRANSFERRED,
        action="C",
        agent=refusal.sender[0],
        at=at,
        result=Result.MINOR_FAILURE,
        what={"SOPInstanceUID": refusal.claim.sop_instance_uid},
        detail={"status": f"0x{refusal.reply.status:04X}", "reason": refusal.reply.comment},
        network=refusal.sender[1],
    )
    return lambda connection: chain.append(connection, event, at)


class Entry:
    """An object whose file stands in the spool, durable, and is to be recorded."""

    def __init__(self, received: Received, quarantine: Path) -> None:
        """Take the object, and the folder of those that conflict."""
        self._got = received
        self._quarantine = quarantine

    def write(self, connection: Connection) -> Reply:
        """Record it in the journal's transaction; returns what the sender is told."""
        known = [_Known(*row) for row in _KNOWN.rows(connection, {"uid": self._got.sop_instance_uid})]
        if known and known[0].digest != self._got.digest:
            return self._conflict(connection, known)
        if not known:
            _ADD.run(connection, self._row("received", self._got.path))
        elif known[0].state == _DELETED:
            row = self._row("received", self._got.path)
            connection.execute(update(objects).where(objects.c.id == known[0].id).values(row))
        else:
            return self._again(connection, known[0])
        self._series(connection)
        self._note(connection, Kind.TRANSFERRED, STORED)
        return STORED

    def _row(self, state: str, path: Path) -> dict[str, Any]:
        got = self._got
        return {
            "sop_instance_uid": got.sop_instance_uid,
            "sop_class_uid": got.sop_class_uid,
            "study_instance_uid": got.study_instance_uid,
            "series_instance_uid": got.series_instance_uid,
            "transfer_syntax_uid": got.transfer_syntax_uid,
            "digest": got.digest,
            "pixel_digest": got.pixel_digest,
            "patient": got.patient,
            "modality": got.modality,
            "size": got.size,
            "path": str(path),
            "route": got.route,
            "calling_ae": got.calling_ae,
            "peer": got.peer,
            "received_at": got.received_at,
            "state": state,
        }

    def _series(self, connection: Connection) -> None:
        """Count the object to its series, which is open again where it was judged."""
        got = self._got
        if _COUNT.run(connection, {"mine": got.series_instance_uid, "at": got.received_at}):
            return
        connection.execute(
            insert(series).values(
                series_instance_uid=got.series_instance_uid,
                study_instance_uid=got.study_instance_uid,
                route=got.route,
                modality=got.modality,
                patient=got.patient,
                objects=1,
                first_at=got.received_at,
                last_at=got.received_at,
                state="open",
                revision=0,
            )
        )

    def _again(self, connection: Connection, known: _Known) -> Reply:
        """The same bytes came before: one row, and one file."""
        if known.path != str(self._got.path):
            self._got.path.unlink(missing_ok=True)
        self._note(connection, Kind.TRANSFERRED, Reply(Status.SUCCESS, "the same object came before"))
        return STORED

    def _conflict(self, connection: Connection, known: Sequence[_Known]) -> Reply:
        """Keep the other content as evidence, once, and say so."""
        self._note(connection, Kind.SECURITY_ALERT, CONFLICT)
        if any(row.digest == self._got.digest for row in known):
            self._got.path.unlink(missing_ok=True)
            return CONFLICT
        folder = self._quarantine / self._got.path.parent.name  # laid out as the spool is
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._got.path.replace(folder / self._got.path.name)
        made = connection.execute(insert(objects).values(self._row(_QUARANTINED, path)))
        number = self._verdict(connection)
        finding = self._finding(known[0].digest)
        connection.execute(
            insert(findings).values(
                object_id=_key(made),
                series_instance_uid=self._got.series_instance_uid,
                verdict_id=number,
                rule=finding.rule,
                outcome=finding.outcome.value,
                reason=finding.reason,
                evidence=dict(finding.evidence),
                threats=list(finding.threats),
                at=self._got.received_at,
            )
        )
        return CONFLICT

    def _finding(self, owner: str) -> Finding:
        return Finding(
            rule=RULE,
            outcome=Outcome.BLOCK,
            reason="The SOP Instance UID is known with other content.",
            evidence={
                "sop_instance_uid": self._got.sop_instance_uid,
                "known_digest": owner,
                "received_digest": self._got.digest,
            },
            threats=("AML.T0059", "NISTAML.02"),
        )

    def _verdict(self, connection: Connection) -> int:
        subject = self._got.sop_instance_uid
        before = select(func.count()).where(verdicts.c.subject == subject, verdicts.c.subject_kind == "instance")
        made = connection.execute(
            insert(verdicts).values(
                subject_kind="instance",
                subject=subject,
                revision=connection.execute(before).scalar_one(),
                route=self._got.route,
                input_digest=self._got.digest,
                outcome=Outcome.BLOCK.value,
                scores={},
                state="held",
                urgency=2,
                created_at=self._got.received_at,
            )
        )
        return _key(made)

    def _note(self, connection: Connection, kind: Kind, reply: Reply) -> None:
        got = self._got
        event = audit_event(
            kind,
            action="C",
            agent=got.calling_ae,
            at=got.received_at,
            result=Result.SUCCESS if reply.stored else Result.SERIOUS_FAILURE,
            what={"SOPInstanceUID": got.sop_instance_uid, "SHA-256": got.digest},
            detail={"status": f"0x{reply.status:04X}", "route": got.route, "reason": reply.comment or "stored"},
            network=got.peer,
        )
        chain.append(connection, event, got.received_at)


def _key(made: CursorResult[Any]) -> int:
    """Return the number of an inserted row."""
    key = made.inserted_primary_key
    assert key is not None
    return int(key[0])
