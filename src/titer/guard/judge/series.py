"""Series: judged as a whole when nothing more comes, and again when something does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, case, func, select, update
from sqlalchemy.engine import Row

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.deliver import queue
from titer.guard.judge import verdicts as written
from titer.guard.judge.conclude import Opinion, failed, opinion, verdict
from titer.guard.judge.instances import CHECKED, JUDGED, QUARANTINED, RECEIVED, route_named
from titer.guard.judge.layers import Load, layers_of, level_of, load_of, noted
from titer.guard.judge.learn import learn
from titer.guard.judge.messages import Ask, Facts, WorkerFailed
from titer.guard.judge.order import in_order, series_digest
from titer.guard.judge.parts import Parts
from titer.guard.judge.workers import Workers
from titer.guard.records import Finding, Outcome, Verdict
from titer.guard.settings import Layer, RouteSettings, ThreatLevel
from titer.guard.store.tables import findings, objects, series


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A series as it stood when it was taken up: objects in slice order."""

    uid: str
    revision: int
    route: RouteSettings
    known: bool
    level: ThreatLevel
    layers: frozenset[Layer]
    rows: tuple[Row[Any], ...]
    blocked: int
    found: tuple[Finding, ...]

    @property
    def paths(self) -> list[Path]:
        """The files, in slice order."""
        return [Path(row.path) for row in self.rows]


class SeriesJudge:
    """Judges series; safe to call from several threads, each with a series of its own."""

    def __init__(self, context: Context, parts: Parts, workers: Workers) -> None:
        """Take what it asks."""
        self._context, self._parts, self._workers = context, parts, workers

    def due(self) -> list[str]:
        """Return the series in which nothing moves any more, or that waited for their deadline.

        A clock that was set back makes ages negative: their size counts, and a slice that comes too late for that
        opens the series again.
        """
        open_ = objects.c.state.in_((RECEIVED, CHECKED))
        asked = (
            select(
                objects.c.series_instance_uid,
                objects.c.route,
                func.min(objects.c.received_at).label("first"),
                func.max(objects.c.received_at).label("last"),
                func.sum(case((objects.c.state == RECEIVED, 1), else_=0)).label("unchecked"),
                func.count().label("all"),
            )
            .where(open_)
            .group_by(objects.c.series_instance_uid, objects.c.route)
        )
        with self._context.engine.connect() as connection:
            return [row.series_instance_uid for row in connection.execute(asked) if self._is_due(row)]

    def _is_due(self, row: Row[Any]) -> bool:
        route = route_named(self._context, row.route) or RouteSettings(name=row.route)
        now = self._context.clock()
        if row.unchecked == row.all:
            return False
        if abs(now - row.first) >= route.deadline_seconds:
            return True
        return not row.unchecked and abs(now - row.last) >= route.quiet_seconds

    def judge(self, uid: str) -> int | None:
        """Judge a series and write its verdict with all that follows; returns its number where it is to be explained.

        Explained is what was flagged, and what passed on a route that sends heat maps, while there is time for it.
        """
        taken = self._taken(uid)
        if taken is None:
            return None
        decided, load = self._decided(taken)
        number = self._context.journal.write(lambda connection: self._write(connection, taken, decided))
        if number is None:
            return None
        self._context.bell.ring(written.BELL)
        self._context.bell.ring(queue.BELL)
        passed = decided.outcome is Outcome.PASS
        if passed and "checks" in taken.layers:
            learn(self._context, self._parts, number, taken.paths)
        wanted = load is Load.NORMAL and decided.result is not None and "explanations" in taken.layers
        return number if wanted and (not passed or taken.route.heatmaps) else None

    def _taken(self, uid: str) -> Taken | None:
        with self._context.engine.connect() as connection:
            row = connection.execute(select(series).where(series.c.series_instance_uid == uid)).first()
            rows = connection.execute(_judged_of(uid)).all()
            if row is None or not rows:
                return None
            blocked = select(func.count()).where(objects.c.series_instance_uid == uid, objects.c.state == QUARANTINED)
            route = route_named(self._context, row.route)
            chosen = route or RouteSettings(name=row.route)
            level = level_of(connection, self._context.settings)
            return Taken(
                uid=uid,
                revision=int(row.revision),
                route=chosen,
                known=route is not None,
                level=level,
                layers=layers_of(connection, chosen, level),
                rows=tuple(in_order(rows)),
                blocked=int(connection.execute(blocked).scalar_one()),
                found=tuple(_of_objects(connection, [one.id for one in rows])),
            )

    def _decided(self, taken: Taken) -> tuple[Verdict, Load]:
        notes = noted(taken.route, taken.layers, taken.level)
        found = [*taken.found, *notes, *self._incomplete(taken), *self._checks(taken)]
        facts, said, load = self._asked(taken)
        digest = series_digest([row.digest for row in taken.rows])
        return verdict("series", taken.uid, digest, facts, found, said), load

    def _incomplete(self, taken: Taken) -> list[Finding]:
        found = []
        if not taken.known:
            reason = f"the route {taken.route.name} stands no more in the settings"
            found.append(Finding(rule="route-gone", outcome=Outcome.FLAG, reason=reason))
        if taken.blocked:
            reason = f"{taken.blocked} objects of this series were blocked: it was judged without them"
            found.append(Finding(rule="series-incomplete", outcome=Outcome.FLAG, reason=reason))
        return found

    def _checks(self, taken: Taken) -> list[Finding]:
        if "checks" not in taken.layers:
            return []
        try:
            with self._context.engine.connect() as connection:
                past = self._parts.past(connection, self._context.identity)
                return list(self._parts.check_series(taken.paths, past))
        except Exception as error:  # noqa: BLE001 - a check that fails must not pass
            reason = f"the series could not be checked: {type(error).__name__}"
            return [Finding(rule="check-failed", outcome=Outcome.FLAG, reason=reason)]

    def _asked(self, taken: Taken) -> tuple[Facts | None, Opinion, Load]:
        """Ask model and detectors; whatever they cannot answer is a FLAG with the reason (G7)."""
        infer, detect = "model" in taken.layers, "detectors" in taken.layers
        if taken.route.model is None or not (infer or detect):
            return None, Opinion(), Load.NORMAL
        load, facts, settings = Load.NORMAL, None, self._context.settings.judge
        try:
            worker = self._workers.worker(taken.route.model)
            load = load_of(worker.delay(), taken.route.budget_ms, taken.level)
            ask = Ask(
                files=tuple(str(path) for path in taken.paths),
                digests=tuple(row.digest for row in taken.rows),
                infer=infer,
                watched=None if detect else (),
                sampled=settings.sampled if load is Load.SAMPLING else None,
                frames=settings.frames,
            )
            answer, facts = worker.ask(ask)
            return facts, opinion(answer, facts, infer=infer, detect=detect), load
        except (WorkerFailed, SpecError) as reason:
            return facts, Opinion(findings=(failed(str(reason)),)), load

    def _write(self, connection: Connection, taken: Taken, decided: Verdict) -> int | None:
        """Write the verdict where the series is still what was judged; nothing is judged twice in effect."""
        mine = series.c.series_instance_uid == taken.uid
        revision = connection.execute(select(series.c.revision).where(mine).with_for_update()).scalar_one()
        now = {row.id for row in connection.execute(_judged_of(taken.uid))}
        if revision != taken.revision or now != {row.id for row in taken.rows}:
            return None
        at = self._context.clock()
        over = written.held(connection, "series", taken.uid)
        number = written.write(connection, decided, route=taken.route.name, revision=taken.revision, at=at)
        connection.execute(update(objects).where(objects.c.id.in_(now)).values(state=JUDGED))
        waiting = select(objects.c.id).where(objects.c.series_instance_uid == taken.uid, objects.c.state == RECEIVED)
        state = "open" if connection.execute(waiting.limit(1)).first() else "judged"
        connection.execute(update(series).where(mine).values(revision=taken.revision + 1, state=state))
        for earlier in over:  # nobody has to review what no longer stands
            self._parts.announce(self._context, connection, earlier)
        if decided.outcome is not Outcome.PASS:
            self._parts.announce(self._context, connection, number)
        else:
            self._parts.release(self._context, connection, number)
        return number


def _judged_of(uid: str) -> Any:
    """Return the query for a series' objects that belong to its verdict."""
    return select(objects).where(objects.c.series_instance_uid == uid, objects.c.state.in_((CHECKED, JUDGED)))


def _of_objects(connection: Connection, numbers: Sequence[int]) -> list[Finding]:
    """Return what was found about single objects and is more than a note."""
    found: list[Finding] = []
    for start in range(0, len(numbers), 500):  # SQLite takes a limited number of values
        part = numbers[start : start + 500]
        asked = select(findings).where(findings.c.object_id.in_(part), findings.c.outcome == str(Outcome.FLAG))
        found += [
            Finding(
                rule=row.rule,
                outcome=Outcome(row.outcome),
                reason=row.reason,
                evidence=row.evidence,
                threats=tuple(row.threats),
            )
            for row in connection.execute(asked)
        ]
    return found
