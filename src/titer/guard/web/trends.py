"""Numbers of the dashboard, each from one or two queries that look at a stretch of time, cut into equal parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select

from titer.guard.deliver.watch import Backlog, backlogs
from titer.guard.store.tables import objects, received, series, switches, verdicts

PARTS = 24
OUTCOMES = ("PASS", "FLAG", "BLOCK")
_MOST = 20_000
"""Verdicts that latency and drift are computed from: the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Time from `start` to `end`, seconds UTC, in `PARTS` parts."""

    start: float
    end: float

    @property
    def width(self) -> float:
        """Length of a part, seconds."""
        return (self.end - self.start) / PARTS

    def part(self, at: float) -> int:
        """Return the part that a moment lies in."""
        return min(max(int((at - self.start) / self.width), 0), PARTS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What the dashboard shows; lists have one value a part, None where nothing was measured."""

    traffic: list[float]
    outcomes: Mapping[str, list[float]]
    studies: int
    alerted: int
    latency_p50: list[float | None]
    latency_p99: list[float | None]
    drift: Mapping[str, list[float | None]]
    held: int
    oldest_held: float | None
    outbox: Sequence[Backlog]

    @property
    def alert_load(self) -> float | None:
        """Studies with a FLAG or a BLOCK per 1000 studies."""
        return 1000 * self.alerted / self.studies if self.studies else None


def numbers(connection: Connection, stretch: Stretch) -> Numbers:
    """Return the dashboard's numbers."""
    recent = _recent(connection, stretch)
    waits = [row for row in recent if row.last_at is not None]
    seconds: list[list[float]] = [[] for _ in range(PARTS)]
    for row in waits:
        seconds[stretch.part(row.created_at)].append(max(row.created_at - row.last_at, 0.0))
    studies, alerted = _studies(connection, stretch)
    held = connection.execute(
        select(func.count(), func.min(verdicts.c.created_at)).where(verdicts.c.state == "held")
    ).one()
    traffic = _counted(connection, received(stretch.start, stretch.end), objects.c.received_at, stretch)
    outcomes = _counted(connection, _made(stretch), verdicts.c.created_at, stretch, verdicts.c.outcome)
    return Numbers(
        traffic=traffic[None],
        outcomes={one: outcomes.get(one, [0.0] * PARTS) for one in OUTCOMES},
        studies=studies,
        alerted=alerted,
        latency_p50=[_quantile(part, 0.5) for part in seconds],
        latency_p99=[_quantile(part, 0.99) for part in seconds],
        drift=_drift(recent, stretch),
        held=int(held[0]),
        oldest_held=held[1],
        outbox=backlogs(connection),
    )


def layers(connection: Connection) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the switches that were set at run time, by route and layer."""
    return {(row.route, row.layer): dict(row._mapping) for row in connection.execute(select(switches))}


def _part(column: Any, stretch: Stretch) -> ColumnElement[int]:
    """Return the part of a time in SQL, the same on SQLite and PostgreSQL, whose casts and modulo differ."""
    edges = [(column < stretch.start + (i + 1) * stretch.width, i) for i in range(PARTS - 1)]
    return case(*edges, else_=PARTS - 1)


def _made(stretch: Stretch) -> ColumnElement[bool]:
    return (verdicts.c.created_at >= stretch.start) & (verdicts.c.created_at < stretch.end)


def _counted(
    connection: Connection, during: ColumnElement[bool], at: Any, stretch: Stretch, by: Any = None
) -> dict[Any, list[float]]:
    part = _part(at, stretch).label("part")
    columns = [part, func.count().label("rows")] + ([] if by is None else [by.label("by")])
    inner = select(*columns).where(during)
    groups = [part] if by is None else [part, by]
    out: dict[Any, list[float]] = defaultdict(lambda: [0.0] * PARTS)
    for row in connection.execute(inner.group_by(*groups)):
        out[None if by is None else row.by][row.part] = float(row.rows)
    if by is None:
        out.setdefault(None, [0.0] * PARTS)
    return dict(out)


def _recent(connection: Connection, stretch: Stretch) -> Sequence[Any]:
    query = (
        select(verdicts.c.created_at, verdicts.c.scores, series.c.last_at)
        .outerjoin(series, series.c.series_instance_uid == verdicts.c.subject)
        .where(_made(stretch))
        .order_by(verdicts.c.created_at.desc())
        .limit(_MOST)
    )
    return connection.execute(query).all()


def _studies(connection: Connection, stretch: Stretch) -> tuple[int, int]:
    """Return how many studies had objects, and how many of them a FLAG or a BLOCK on a series or an instance."""
    during = received(stretch.start, stretch.end)
    count = func.count(objects.c.study_instance_uid.distinct())
    # A verdict is made after its objects came in: no older one is looked at.
    alerts = select(verdicts.c.subject).where(
        verdicts.c.created_at >= stretch.start, verdicts.c.outcome.in_(("FLAG", "BLOCK"))
    )
    mine = objects.c.series_instance_uid.in_(alerts) | objects.c.sop_instance_uid.in_(alerts)
    seen = connection.execute(select(count).where(during)).scalar_one()
    return int(seen), int(connection.execute(select(count).where(during, mine)).scalar_one())


def _drift(recent: Sequence[Any], stretch: Stretch) -> dict[str, list[float | None]]:
    """Return the median of each detector's score over its threshold: 1 is where it flags."""
    found: dict[str, list[list[float]]] = defaultdict(lambda: [[] for _ in range(PARTS)])
    for row in recent:
        for name, given in row.scores.items():
            score, threshold = given.get("score"), given.get("threshold")
            if score is not None and threshold:
                found[name][stretch.part(row.created_at)].append(score / threshold)
    return {name: [median(part) if part else None for part in parts] for name, parts in sorted(found.items())}


def _quantile(values: list[float], share: float) -> float | None:
    if not values:
        return None
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]
