"""Counters for Prometheus: what the pages count themselves, and what the database holds when it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from titer.guard.context import Context
from titer.guard.judge.layers import level_of
from titer.guard.settings import THREAT_LEVELS
from titer.guard.store.tables import audit_head, objects, outbox, verdicts
from titer.guard.web.upkeep import DAY, alerts

_GROUPS = (
    ("titer_objects", "Objects received, by state", objects.c.route, objects.c.state),
    ("titer_verdicts", "Verdicts, by outcome", verdicts.c.route, verdicts.c.outcome),
    ("titer_cases", "Verdicts, by state of review", verdicts.c.route, verdicts.c.state),
    ("titer_outbox", "Items of the outbox, by state", outbox.c.destination, outbox.c.state),
)
_SHARE = 100
_LONG_SECONDS = 0.05


class Measures:
    """One guard's registry: nothing is shared with another guard of the same process."""

    def __init__(self, context: Context) -> None:
        """Register everything."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "titer_http_requests",
            "Requests, by route and status",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram("titer_http_seconds", "Time of an answer", ["route"], registry=self.registry)
        self.logins = Counter("titer_logins", "Logins, by how they ended", ["how"], registry=self.registry)
        self.registry.register(_Database(context))

    def text(self) -> bytes:
        """Return the text format that Prometheus reads."""
        return generate_latest(self.registry)


class _Database(Collector):
    """Counts rows when it is asked; labels are routes, destinations and states: no identity of anyone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._counted: list[GaugeMetricFamily] = []
        self._again = 0.0

    def _counts(self, connection: Connection) -> list[GaugeMetricFamily]:
        """Count whole tables, which takes the longer the more there is: at most a hundredth of the time."""
        began = time.monotonic()
        if began < self._again:
            return self._counted
        counted = []  # two scrapes at once must not fill one list
        for name, said, first, second in _GROUPS:
            family = GaugeMetricFamily(name, said, labels=[first.name, second.name])
            for one, other, count in connection.execute(select(first, second, func.count()).group_by(first, second)):
                family.add_metric([str(one), str(other)], float(count))
            counted.append(family)
        took = time.monotonic() - began
        self._counted = counted
        self._again = began + _SHARE * took if took > _LONG_SECONDS else 0.0
        return counted

    def collect(self) -> Iterator[Any]:
        with self._context.engine.connect() as connection:
            yield from self._counts(connection)
            oldest = connection.execute(
                select(func.min(outbox.c.created_at)).where(outbox.c.state == "waiting")
            ).scalar()
            rows = connection.execute(select(audit_head.c.seq)).scalar()
            _, alarms = alerts(connection, self._context.clock() - DAY)
            level = level_of(connection, self._context.settings)
        yield GaugeMetricFamily(
            "titer_threat_level", "0 normal, 1 raised, 2 high", value=float(THREAT_LEVELS.index(level))
        )
        waits = 0.0 if oldest is None else max(self._context.clock() - oldest, 0.0)
        yield GaugeMetricFamily("titer_security_alerts", "Security alerts of the last day", value=float(alarms))
        yield GaugeMetricFamily("titer_outbox_oldest_seconds", "Age of the oldest item that waits", value=waits)
        yield GaugeMetricFamily("titer_audit_rows", "Rows of the audit chain", value=float(rows or 0))
        trouble = GaugeMetricFamily("titer_component_up", "1 where a component works", labels=["component"])
        for part in self._context.parts:
            trouble.add_metric([part.name], 0.0 if part.trouble() else 1.0)
        yield trouble
