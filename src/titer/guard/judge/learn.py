"""What is usual for a device: learned from series that passed, and from flagged ones that a person accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.deliver.permit import RELEASED
from titer.guard.judge.instances import route_named
from titer.guard.judge.layers import layers_of, level_of
from titer.guard.judge.order import series_digest
from titer.guard.judge.parts import Parts
from titer.guard.judge.subject import images_of
from titer.guard.records import Outcome
from titer.guard.store.tables import verdicts


def learn(
    context: Context, parts: Parts, verdict_id: int, paths: Sequence[Path], event: Mapping[str, Any] | None = None
) -> None:
    """Let a device's baseline learn from the series of a released verdict; what cannot be learned from is left.

    A series teaches once, whatever is judged of it later: else one that comes in three instalments were a habit. Files
    are read before the transaction, and no other write waits for them. `event` is audited with what is learned.
    """
    with suppress(Exception):  # the verdict stands; a baseline that lacks one series is no fault
        step = parts.learning(context.identity, paths)

        def once(connection: Connection) -> None:
            if _taught_before(connection, verdict_id):
                return
            step(connection)
            if event is not None:
                chain.append(connection, dict(event), context.clock())

        context.journal.write(once)


def accepted(context: Context, parts: Parts, verdict_id: int, account: str) -> None:
    """Learn from a flagged series that `account` accepted, and note it in the audit log.

    Nothing is learned of what was blocked, of a series that is no longer whole, or whose checks are switched off.
    """
    with context.engine.connect() as connection:
        row = connection.execute(select(verdicts).where(verdicts.c.id == verdict_id)).one()
        if not _teaches(context, connection, row):
            return
        images = images_of(connection, row)
    if series_digest([one.digest for one in images]) != row.input_digest:
        return
    event = audit_event(
        Kind.APPLICATION,
        action="U",
        agent=account,
        at=context.clock(),
        what={"series": row.subject, "verdict": str(row.id)},
        detail={"what": "the device's baseline learns from an accepted series"},
    )
    learn(context, parts, verdict_id, [Path(one.path) for one in images], event)


def _teaches(context: Context, connection: Connection, row: Any) -> bool:
    route = route_named(context, row.route)
    asked = row.subject_kind == "series" and row.outcome == str(Outcome.FLAG) and row.state == "accepted"
    level = level_of(connection, context.settings)
    return asked and route is not None and "checks" in layers_of(connection, route, level)


def _taught_before(connection: Connection, verdict_id: int) -> bool:
    mine = connection.execute(select(verdicts.c.subject, verdicts.c.revision).where(verdicts.c.id == verdict_id)).one()
    earlier = select(verdicts.c.id).where(
        verdicts.c.subject == mine.subject,
        verdicts.c.subject_kind == "series",
        verdicts.c.revision < mine.revision,
        verdicts.c.state.in_(RELEASED),
    )
    return connection.execute(earlier.limit(1)).first() is not None
