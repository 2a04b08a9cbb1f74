"""The outbox's entrance: an item is queued in the transaction of the decision that sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from titer.guard.store.tables import outbox

WAITING, DELIVERED, DEAD, WITHHELD = "waiting", "delivered", "dead", "withheld"
OBJECT = "object"
RESULTS = ("structured-report", "capture", "diagnostic-report", "task", "event")
BELL = "outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something to send: a file (`path`, of an object byte for byte as it came) or a JSON `body`.

    `digest` is the SHA-256 of the object's file, or of the canonical JSON of `body`, from which a result is written.
    Destination, kind, subject and digest together are sent once in effect: queueing the same item again does nothing,
    unless it was given up or withheld.
    """

    destination: str
    kind: str
    subject: str
    digest: str
    path: str | None = None
    body: Mapping[str, Any] | None = None
    verdict_id: int | None = None


def enqueue(connection: Connection, item: Item, at: float) -> bool:
    """Queue an item in the caller's transaction; False where it waits or was delivered. Ring `BELL` after it."""
    same = select(outbox.c.id, outbox.c.state).where(
        outbox.c.destination == item.destination,
        outbox.c.kind == item.kind,
        outbox.c.subject == item.subject,
        outbox.c.digest == item.digest,
    )
    before = connection.execute(same).first()
    if before is not None:
        return before.state in (DEAD, WITHHELD) and again(connection, before.id, at)
    connection.execute(
        insert(outbox).values(
            destination=item.destination,
            kind=item.kind,
            subject=item.subject,
            digest=item.digest,
            path=item.path,
            body=None if item.body is None else dict(item.body),
            verdict_id=item.verdict_id,
            state=WAITING,
            attempts=0,
            due_at=at,
            created_at=at,
        )
    )
    return True


def again(connection: Connection, item_id: int, at: float, destinations: Sequence[str] | None = None) -> bool:
    """Let an item that was given up or withheld wait anew, in the caller's transaction.

    False where it is neither, or for none of `destinations`, where they are named.
    """
    chosen = update(outbox).where(outbox.c.id == item_id, outbox.c.state.in_((DEAD, WITHHELD)))
    if destinations is not None:
        chosen = chosen.where(outbox.c.destination.in_(destinations))
    changed = connection.execute(chosen.values(state=WAITING, attempts=0, due_at=at, created_at=at))
    return changed.rowcount == 1


def all_again(connection: Connection, destination: str, at: float) -> int:
    """Let everything wait anew that was given up for a destination, in the caller's transaction; returns how many."""
    changed = connection.execute(
        update(outbox)
        .where(outbox.c.destination == destination, outbox.c.state == DEAD)
        .values(state=WAITING, attempts=0, due_at=at, created_at=at)
    )
    return int(changed.rowcount)
