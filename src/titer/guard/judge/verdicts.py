"""How a verdict is written: its row, its findings and its audit row, in the transaction of whatever follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, insert, select, update

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.judge.conclude import urgency
from titer.guard.records import Finding, Outcome, Verdict
from titer.guard.store.tables import findings, verdicts

HELD, RELEASED, SUPERSEDED = "held", "released", "superseded"
BELL = "verdicts"
_LONGEST = 2000


def write(
    connection: Connection, verdict: Verdict, *, route: str, revision: int, at: float, object_id: int | None = None
) -> int:
    """Write a verdict with its findings and its audit row, and return its number.

    `object_id` is the object of an instance's verdict.

    Held verdicts of earlier revisions of the subject are superseded: what they were about is no longer all there is.
    """
    older = (verdicts.c.subject == verdict.subject) & (verdicts.c.subject_kind == verdict.subject_kind)
    connection.execute(update(verdicts).where(older, verdicts.c.state == HELD).values(state=SUPERSEDED))
    passed = verdict.outcome is Outcome.PASS
    row = connection.execute(
        insert(verdicts).values(
            subject_kind=verdict.subject_kind,
            subject=verdict.subject,
            revision=revision,
            route=route,
            input_digest=verdict.input_digest,
            model_digest=verdict.model_digest,
            bundle_version=verdict.bundle_version,
            outcome=str(verdict.outcome),
            scores={name: dict(values) for name, values in verdict.scores.items()},
            result=None if verdict.result is None else dict(verdict.result),
            state=RELEASED if passed else HELD,
            urgency=urgency(verdict.findings),
            created_at=at,
        )
    )
    assert row.inserted_primary_key is not None
    number = int(row.inserted_primary_key[0])
    series = verdict.subject if verdict.subject_kind == "series" else None
    note(connection, verdict.findings, at, verdict_id=number, object_id=object_id, series_instance_uid=series)
    chain.append(connection, _event(verdict, number, revision, at), at)
    return number


def held(connection: Connection, subject_kind: str, subject: str) -> list[int]:
    """Return the numbers of a subject's verdicts that wait for a person."""
    mine = (verdicts.c.subject_kind == subject_kind) & (verdicts.c.subject == subject)
    chosen = select(verdicts.c.id).where(mine, verdicts.c.state == HELD)
    return [int(row.id) for row in connection.execute(chosen)]


def note(connection: Connection, found: Iterable[Finding], at: float, **columns: Any) -> None:
    """Write findings; `columns` say of what: object_id, series_instance_uid, verdict_id."""
    for one in found:
        connection.execute(
            insert(findings).values(
                rule=one.rule[:64],
                outcome=str(one.outcome),
                reason=one.reason[:_LONGEST],
                evidence=dict(one.evidence),
                threats=list(one.threats),
                at=at,
                **columns,
            )
        )


def _event(verdict: Verdict, number: int, revision: int, at: float) -> dict[str, Any]:
    blocked = verdict.outcome is Outcome.BLOCK
    return audit_event(
        Kind.SECURITY_ALERT if blocked else Kind.APPLICATION,
        action="E",
        agent="guard",
        at=at,
        result=Result.SUCCESS if verdict.outcome is Outcome.PASS else Result.MINOR_FAILURE,
        what={verdict.subject_kind: verdict.subject, "verdict": str(number)},
        detail={
            "outcome": str(verdict.outcome),
            "revision": str(revision),
            "input": verdict.input_digest,
            "model": verdict.model_digest or "none",
            "bundle": verdict.bundle_version or "none",
            "rules": " ".join(sorted({one.rule for one in verdict.findings if one.outcome is not Outcome.PASS})),
        },
    )
