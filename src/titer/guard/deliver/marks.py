"""What became of an item: its row in the outbox and its rows in the audit chain, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, update
from sqlalchemy.engine import Row

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.deliver.queue import DEAD, DELIVERED, WAITING, WITHHELD
from titer.guard.store.tables import outbox

_RESULTS = {
    DELIVERED: Result.SUCCESS,
    WAITING: Result.MINOR_FAILURE,
    DEAD: Result.SERIOUS_FAILURE,
    WITHHELD: Result.MINOR_FAILURE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The end of one try: the item's new state and why; `alert` where somebody may have tampered with something."""

    state: str
    reason: str = ""
    due_at: float | None = None
    alert: bool = False


def write(connection: Connection, item: Row[tuple[object, ...]], mark: Mark, at: float) -> None:
    """Write a mark in the caller's transaction: every try is an audit row, giving up is a second one."""
    values: dict[str, object] = {"state": mark.state, "last_error": mark.reason or None}
    if mark.state != WITHHELD:
        values["attempts"] = item.attempts + 1
    if mark.due_at is not None:
        values["due_at"] = mark.due_at
    connection.execute(update(outbox).where(outbox.c.id == item.id).values(values))
    _account(connection, item, mark, at, Kind.TRANSFERRED, _RESULTS[mark.state])
    if mark.alert:
        _account(connection, item, mark, at, Kind.SECURITY_ALERT, Result.SERIOUS_FAILURE)
    elif mark.state == DEAD:
        _account(connection, item, mark, at, Kind.APPLICATION, Result.SERIOUS_FAILURE)


def _account(
    connection: Connection, item: Row[tuple[object, ...]], mark: Mark, at: float, kind: Kind, result: Result
) -> None:
    detail = {
        "what": "deliver",
        "destination": item.destination,
        "kind": item.kind,
        "state": mark.state,
        "attempt": str(item.attempts + 1),
    }
    if item.verdict_id is not None:
        detail["verdict"] = str(item.verdict_id)
    if mark.reason:
        detail["reason"] = mark.reason
    name = "SOPInstanceUID" if item.verdict_id is None else "subject"
    what = {name: str(item.subject), "sha256": str(item.digest)}
    event = audit_event(kind, action="E", agent="guard", at=at, result=result, what=what, detail=detail)
    chain.append(connection, event, at)
