"""What an administrator sees of the outbox, and the one thing to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.deliver.queue import BELL, DEAD, WAITING, WITHHELD, again
from titer.guard.store.tables import outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """A destination's items; `oldest` is when its oldest waiting one was queued, seconds UTC."""

    destination: str
    waiting: int
    dead: int
    withheld: int
    delivered: int
    oldest: float | None


def backlogs(connection: Connection) -> list[Backlog]:
    """Return every destination that ever had an item, by name."""
    counted = connection.execute(
        select(outbox.c.destination, outbox.c.state, func.count(), func.min(outbox.c.created_at)).group_by(
            outbox.c.destination, outbox.c.state
        )
    )
    found: dict[str, dict[str, tuple[int, float]]] = {}
    for destination, state, count, oldest in counted:
        found.setdefault(destination, {})[state] = (count, oldest)
    return [_backlog(name, states) for name, states in sorted(found.items())]


def stuck(connection: Connection, limit: int = 100) -> list[dict[str, Any]]:
    """Return the newest items that were given up or withheld, with why; no body."""
    columns = [outbox.c[name] for name in ("id", "destination", "kind", "subject", "state", "attempts", "last_error")]
    wanted = select(*columns, outbox.c.created_at).where(outbox.c.state.in_((DEAD, WITHHELD)))
    return [dict(row._mapping) for row in connection.execute(wanted.order_by(outbox.c.id.desc()).limit(limit))]


def retry(context: Context, item_id: int, account: str) -> bool:
    """Send an item that was given up or withheld once more; every check is made again. False where it is neither."""
    at = context.clock()

    def step(connection: Connection) -> bool:
        changed = again(connection, item_id, at)
        if changed:
            detail = {"what": "retry delivery", "item": str(item_id)}
            chain.append(connection, audit_event(Kind.APPLICATION, action="E", agent=account, at=at, detail=detail), at)
        return changed

    changed = context.journal.write(step)
    context.bell.ring(BELL)
    return changed


def _backlog(name: str, states: dict[str, tuple[int, float]]) -> Backlog:
    def count(state: str) -> int:
        return states.get(state, (0, 0.0))[0]

    return Backlog(
        destination=name,
        waiting=count(WAITING),
        dead=count(DEAD),
        withheld=count(WITHHELD),
        delivered=count("delivered"),
        oldest=states[WAITING][1] if WAITING in states else None,
    )
