"""What a person decides about a held verdict: kept as feedback, audited, and carried out in one transaction.

accept: the result is right as the model gave it, and goes. override: a person's label stands instead; the model's
result never leaves. reject: nothing leaves. comment: a remark. What was blocked needs two people who agree, one of them
a radiologist; who rejects needs nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.engine import Row

from titer.core.errors import SpecError, unknown
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.deliver import queue
from titer.guard.deliver.results import HeatMap
from titer.guard.judge.explain import kept
from titer.guard.judge.instances import CHECKED, QUARANTINED, Instances
from titer.guard.judge.learn import accepted
from titer.guard.judge.parts import Parts, real
from titer.guard.judge.verdicts import BELL, HELD
from titer.guard.records import Outcome
from titer.guard.store.tables import objects, reviews, verdicts

Action = Literal["accept", "override", "reject", "comment"]
ACTIONS: tuple[Action, ...] = ("accept", "override", "reject", "comment")
RADIOLOGIST, REVIEWER = "radiologist", "reviewer"
_ROLES = (RADIOLOGIST, REVIEWER)
_STATES = {"accept": "accepted", "override": "overridden", "reject": "rejected"}
_LONGEST = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a decision led to: the verdict's state now, and whether it waits for a second person."""

    state: str
    waits_for_second: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    account: str
    role: str
    action: str
    comment: str
    label: str | None


def decide(
    context: Context,
    verdict_id: int,
    account: str,
    role: str,
    action: str,
    comment: str = "",
    label: str | None = None,
    parts: Callable[[], Parts] | None = None,
) -> Decision:
    """Decide about a held verdict.

    Args:
        context: the guard.
        verdict_id: which verdict.
        account: who decides; two decisions of one account count once.
        role: radiologist or reviewer.
        action: accept, override, reject or comment.
        comment: for the record; a comment needs words or a label.
        label: the class that the person says, kept for recalibration; needed for an override of a result.
        parts: what delivery does with it; those of this guard by default.

    Raises:
        SpecError: another role or action, a verdict that is not held, a label that is needed or is none, or the same
            person a second time.
    """
    said = _Said(account=account, role=role, action=action, comment=comment[:_LONGEST], label=label)
    _check(said)
    others = parts or partial(real, context)
    maps = kept(context, verdict_id) if action == "accept" else []  # read before the transaction: files take time
    released: list[Path] = []

    def step(connection: Connection) -> Decision:
        row = connection.execute(select(verdicts).where(verdicts.c.id == verdict_id).with_for_update()).first()
        if row is None:
            raise SpecError(f"verdict = {verdict_id} is not known")
        _check_verdict(connection, row, said)
        waits = _waits(connection, row, said)
        _note(context, connection, row, said, waits=waits)
        if said.action == "comment" or waits:
            return Decision(state=row.state, waits_for_second=waits)
        connection.execute(update(verdicts).where(verdicts.c.id == row.id).values(state=_STATES[said.action]))
        released.extend(_follow(context, connection, row, said, others(), maps))
        return Decision(state=_STATES[said.action])

    decided = context.journal.write(step)
    for path in released:
        path.unlink(missing_ok=True)
    for bell in (BELL, queue.BELL, "objects"):
        context.bell.ring(bell)
    if decided.state == _STATES["accept"] and action == "accept":
        accepted(context, others(), verdict_id, account)
    return decided


def _check(said: _Said) -> None:
    if said.action not in ACTIONS:
        raise unknown("action", said.action, ACTIONS)
    if said.role not in _ROLES:
        raise SpecError(f"role = {said.role!r} may not decide about verdicts: allowed are {', '.join(_ROLES)}")
    if said.action == "comment" and not (said.comment.strip() or said.label):
        raise SpecError("comment is empty: a comment needs words, or a label")


def _check_verdict(connection: Connection, row: Row[Any], said: _Said) -> None:
    """Refuse what cannot be decided: comments alone are welcome whatever the state."""
    if said.action == "comment":
        return
    if row.state != HELD:
        raise SpecError(f"verdict {row.id} is {row.state}: only held verdicts are decided")
    same = (verdicts.c.subject == row.subject) & (verdicts.c.subject_kind == row.subject_kind)
    newest = connection.execute(select(func.max(verdicts.c.revision)).where(same)).scalar_one()
    if newest > row.revision:
        raise SpecError(
            f"verdict {row.id} is of revision {row.revision}, and revision {newest} stands: decide that one"
        )
    classes = [] if row.result is None else list(row.result["classes"])
    if said.action == "override" and classes and said.label is None:
        raise SpecError(f"label is missing: an override needs one of {', '.join(classes)}")
    if said.label is not None and classes and said.label not in classes:
        raise unknown("label", said.label, classes)


def _waits(connection: Connection, row: Row[Any], said: _Said) -> bool:
    """Whether a second person has to agree: of what was blocked, two different accounts and one radiologist.

    Raises:
        SpecError: this person said so already, or none of the two is a radiologist.
    """
    if row.outcome != str(Outcome.BLOCK) or said.action not in ("accept", "override"):
        return False
    mine = reviews.c.verdict_id == row.id
    before = connection.execute(select(reviews).where(mine, reviews.c.action == said.action)).all()
    if any(one.account == said.account for one in before):
        raise SpecError(f"{said.account} said so already: what was blocked needs a second person")
    if not before:
        return True
    roles = {said.role, *(one.role for one in before)}
    if RADIOLOGIST not in roles:
        raise SpecError("what was blocked is released by a radiologist: one of the two people has to be one")
    return False


def _note(context: Context, connection: Connection, row: Row[Any], said: _Said, *, waits: bool) -> None:
    """Keep the review, and account for it."""
    at = context.clock()
    connection.execute(
        insert(reviews).values(
            verdict_id=row.id,
            account=said.account,
            role=said.role,
            action=said.action,
            comment=said.comment,
            label=said.label,
            at=at,
        )
    )
    detail = {"decision": said.action, "role": said.role, "outcome": row.outcome, "label": said.label or "none"}
    event = audit_event(
        Kind.APPLICATION,
        action="U",
        agent=said.account,
        at=at,
        what={row.subject_kind: row.subject, "verdict": str(row.id)},
        detail=detail | ({"waits": "for a second person"} if waits else {}),
    )
    chain.append(connection, event, at)


def _follow(
    context: Context, connection: Connection, row: Row[Any], said: _Said, others: Parts, maps: list[HeatMap]
) -> list[Path]:
    """Carry the decision out; return the files that are to go once it is durable.

    What was announced as waiting for a person is announced again: its request for review is over.
    """
    if row.outcome == str(Outcome.FLAG):
        others.announce(context, connection, int(row.id))
    if row.subject_kind == "instance" and said.action in ("accept", "override"):
        return _let_out(context, connection, row, others)
    if row.subject_kind != "instance" and said.action == "accept":
        others.release(context, connection, int(row.id), maps)
    return []


def _let_out(context: Context, connection: Connection, row: Row[Any], parts: Parts) -> list[Path]:
    """Put a blocked object back: it goes on to its destinations, and its series is judged anew with it.

    An object that was refused because its UID is known with other content stays where it is: the first one has the UID.
    """
    mine = (objects.c.sop_instance_uid == row.subject) & (objects.c.digest == row.input_digest)
    one = connection.execute(select(objects).where(mine, objects.c.state == QUARANTINED)).first()
    if one is None:
        return []
    other = (objects.c.sop_instance_uid == row.subject) & (objects.c.digest != row.input_digest)
    if connection.execute(select(objects.c.id).where(other, objects.c.state != QUARANTINED).limit(1)).first():
        raise SpecError(f"verdict {row.id}: another object has this SOP Instance UID; this one can only be rejected")
    kept = Path(one.path)
    path = kept
    if kept.is_relative_to(context.home.quarantine):
        path = context.home.spool / kept.relative_to(context.home.quarantine)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.hardlink_to(kept)
    connection.execute(update(objects).where(objects.c.id == one.id).values(state=CHECKED, path=str(path)))
    again = connection.execute(select(objects).where(objects.c.id == one.id)).one()
    Instances(context, parts).send(connection, again)
    return [kept] if path != kept else []
