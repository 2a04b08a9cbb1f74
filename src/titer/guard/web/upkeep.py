"""What an operator looks after: disk, retention, quotas of senders, and security alerts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from titer.guard.audit.events import Kind
from titer.guard.context import Context
from titer.guard.store.tables import OBJECT_STATES, audit, audit_head, objects, received

DAY = 86_400.0
_MiB = 1 << 20
_SENDERS, _ALERTS = 8, 20
_LOOKED_AT = 50_000
"""Rows at the end of the audit chain in which alerts are looked for: their number bounds the time that it takes."""
_WORDS = ("what", "reason", "rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One security alert of the audit chain; `said` is what the guard says of it, never what a person typed."""

    seq: int
    at: float
    agent: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """Disk and senders: `free_mib` is None where the disk does not answer."""

    kept: int
    kept_mib: float
    oldest: float | None
    free_mib: float | None
    senders: Sequence[tuple[str, float]]
    """Who stored most today (UTC), with MiB."""


def upkeep(connection: Connection, context: Context) -> Upkeep:
    """Return what the disk holds now."""
    there = objects.c.state.in_([one for one in OBJECT_STATES if one != "deleted"])
    kept = connection.execute(
        select(func.count(), func.sum(objects.c.size), func.min(objects.c.received_at)).where(there)
    ).one()
    today = context.clock() // DAY * DAY
    size = func.sum(objects.c.size)
    most = select(objects.c.calling_ae, size).where(received(today, today + DAY))
    rows = connection.execute(most.group_by(objects.c.calling_ae).order_by(size.desc()).limit(_SENDERS)).all()
    return Upkeep(
        kept=int(kept[0]),
        kept_mib=float(kept[1] or 0) / _MiB,
        oldest=kept[2],
        free_mib=_free(context),
        senders=[(str(name), float(used) / _MiB) for name, used in rows],
    )


def alerts(connection: Connection, since: float) -> tuple[list[Alert], int]:
    """Return the newest security alerts since a time, and how many there are among the chain's last 50,000 rows."""
    head = connection.execute(select(audit_head.c.seq)).scalar() or 0
    code = Kind.SECURITY_ALERT.value[0]
    chosen = (
        select(audit.c.seq, audit.c.at, audit.c.event)
        .where(audit.c.seq > head - _LOOKED_AT, audit.c.at >= since)
        .where(audit.c.event.contains(f'"code":"{code}"', autoescape=True))
    )
    count = connection.execute(select(func.count()).select_from(chosen.subquery())).scalar_one()
    rows = connection.execute(chosen.order_by(audit.c.seq.desc()).limit(_ALERTS)).all()
    return [_alert(row) for row in rows], int(count)


def _alert(row: Any) -> Alert:
    event: Mapping[str, Any] = json.loads(row.event)
    told = {one["type"]: one["valueString"] for entity in event.get("entity", []) for one in entity.get("detail", [])}
    word = next((one for one in _WORDS if one in told), None)
    said = "" if word is None else f"blocked: {told[word]}" if word == "rules" else str(told[word])
    agent = str(event["agent"][0]["who"]["identifier"]["value"])
    return Alert(seq=row.seq, at=row.at, agent=agent, said=said)


def _free(context: Context) -> float | None:
    try:
        return shutil.disk_usage(context.home.root).free / _MiB
    except OSError:
        return None
