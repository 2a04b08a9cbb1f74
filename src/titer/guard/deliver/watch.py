"""What an administrator sees of the outbox, and the one thing to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.deliver.queue import BELL, DEAD, DELIVERED, WAITING, WITHHELD, again, all_again
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
    pair = (outbox.c.destination, outbox.c.state)
    found: dict[str, dict[str, int]] = {}
    for destination, state, count in connection.execute(select(*pair, func.count()).group_by(*pair)):
        found.setdefault(destination, {})[state] = count
    waiting = select(outbox.c.destination, func.min(outbox.c.created_at)).where(outbox.c.state == WAITING)
    oldest = {row[0]: row[1] for row in connection.execute(waiting.group_by(outbox.c.destination))}
    return [_backlog(name, states, oldest.get(name)) for name, states in sorted(found.items())]


def stuck(connection: Connection, limit: int = 100, destination: str | None = None) -> list[dict[str, Any]]:
    """Return the newest items that were given up or withheld, of one destination or of all, with why; no body."""
    columns = [outbox.c[name] for name in ("id", "destination", "kind", "subject", "state", "attempts", "last_error")]
    wanted = select(*columns, outbox.c.created_at).where(outbox.c.state.in_((DEAD, WITHHELD)))
    if destination is not None:
        wanted = wanted.where(outbox.c.destination == destination)
    return [dict(row._mapping) for row in connection.execute(wanted.order_by(outbox.c.id.desc()).limit(limit))]


def retry(context: Context, item_id: int, account: str) -> bool:
    """Send an item that was given up or withheld once more; every check is made again.

    False where it is neither, or its destination is not in the settings any more.
    """
    at, known = context.clock(), [one.name for one in context.settings.destinations]

    def step(connection: Connection) -> bool:
        changed = again(connection, item_id, at, known)
        if changed:
            detail = {"what": "retry delivery", "item": str(item_id)}
            chain.append(connection, audit_event(Kind.APPLICATION, action="E", agent=account, at=at, detail=detail), at)
        return changed

    changed = context.journal.write(step)
    context.bell.ring(BELL)
    return changed


def retry_all(context: Context, destination: str, account: str) -> int:
    """Send everything again that was given up for a destination of the settings; returns how many items.

    One audit row tells of all of them.
    """
    at, known = context.clock(), [one.name for one in context.settings.destinations]

    def step(connection: Connection) -> int:
        count = all_again(connection, destination, at) if destination in known else 0
        if count:
            detail = {"what": "retry delivery", "destination": destination, "items": str(count)}
            chain.append(connection, audit_event(Kind.APPLICATION, action="E", agent=account, at=at, detail=detail), at)
        return count

    count = context.journal.write(step)
    context.bell.ring(BELL)
    return count


def _backlog(name: str, states: dict[str, int], oldest: float | None) -> Backlog:
    return Backlog(
        destination=name,
        waiting=states.get(WAITING, 0),
        dead=states.get(DEAD, 0),
        withheld=states.get(WITHHELD, 0),
        delivered=states.get(DELIVERED, 0),
        oldest=oldest,
    )
