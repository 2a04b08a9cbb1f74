"""The outbox's entrance: an item is queued in the transaction of the decision that sends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from titer.guard.store.tables import outbox

WAITING, DELIVERED, DEAD = "waiting", "delivered", "dead"
OBJECT = "object"
RESULTS = ("structured-report", "capture", "diagnostic-report", "task", "event")
BELL = "outbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something to send: a file (`path`, of an object byte for byte as it came) or a JSON `body`.

    `digest` is the SHA-256 of what is sent. Destination, kind, subject and digest together are sent once in effect:
    queueing the same item again does nothing.
    """

    destination: str
    kind: str
    subject: str
    digest: str
    path: str | None = None
    body: Mapping[str, Any] | None = None
    verdict_id: int | None = None


def enqueue(connection: Connection, item: Item, at: float) -> bool:
    """Queue an item in the caller's transaction; False where it was queued before. Ring `BELL` after the commit."""
    same = select(outbox.c.id).where(
        outbox.c.destination == item.destination,
        outbox.c.kind == item.kind,
        outbox.c.subject == item.subject,
        outbox.c.digest == item.digest,
    )
    if connection.execute(same).first() is not None:
        return False
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
