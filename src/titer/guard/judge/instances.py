"""Objects one by one: checked, sent on to the PACS at once, or blocked and put into quarantine."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.engine import Row

from titer.guard.context import Context
from titer.guard.deliver import queue
from titer.guard.judge import verdicts as written
from titer.guard.judge.layers import layers_of, level_of
from titer.guard.judge.parts import Parts
from titer.guard.records import Finding, Outcome, Verdict, severest
from titer.guard.settings import RouteSettings
from titer.guard.store.tables import objects, series, verdicts

RECEIVED, CHECKED, JUDGED, QUARANTINED = "received", "checked", "judged", "quarantined"
_AT_ONCE = 200


def route_named(context: Context, name: str) -> RouteSettings | None:
    """Return a route of the settings; None where it stands there no more."""
    return next((route for route in context.settings.routes if route.name == name), None)


class Instances:
    """Takes objects that came in, oldest first."""

    def __init__(self, context: Context, parts: Parts) -> None:
        """Take what the checks are."""
        self._context, self._parts = context, parts

    def waiting(self) -> list[Row[Any]]:
        """Return some objects that are not checked yet."""
        asked = select(objects).where(objects.c.state == RECEIVED).order_by(objects.c.received_at)
        with self._context.engine.connect() as connection:
            return list(connection.execute(asked.limit(_AT_ONCE)))

    def take(self, row: Row[Any]) -> None:
        """Check one object and write what follows; what was written already by another run is left."""
        found = self._checked(row)
        blocked = severest(one.outcome for one in found) is Outcome.BLOCK
        kept = self._put_away(row) if blocked else None

        def step(connection: Connection) -> bool:
            mine = (objects.c.id == row.id) & (objects.c.state == RECEIVED)
            state = QUARANTINED if blocked else CHECKED
            path = {} if kept is None else {"path": str(kept)}
            if not connection.execute(update(objects).where(mine).values(state=state, **path)).rowcount:
                return False
            if blocked:
                self._block(connection, row, found)
            else:
                written.note(connection, found, self._context.clock(), object_id=row.id)
                self.send(connection, row)
            return True

        if self._context.journal.write(step) and kept is not None:
            Path(row.path).unlink(missing_ok=True)
        self._context.bell.ring(written.BELL if blocked else queue.BELL)

    def send(self, connection: Connection, row: Row[Any]) -> None:
        """Queue an object for every destination of its route, and open its series (care does not wait)."""
        at = self._context.clock()
        route = route_named(self._context, row.route)
        for destination in route.images if route else ():
            item = queue.Item(
                destination=destination,
                kind=queue.OBJECT,
                subject=row.sop_instance_uid,
                digest=row.digest,
                path=row.path,
            )
            queue.enqueue(connection, item, at)
        mine = series.c.series_instance_uid == row.series_instance_uid
        connection.execute(update(series).where(mine).values(state="open"))

    def tidy(self) -> None:
        """After a restart: remove what stands both in quarantine and in the spool."""
        with self._context.engine.connect() as connection:
            blocked = connection.execute(select(objects.c.path).where(objects.c.state == QUARANTINED))
            for path in (Path(row.path) for row in blocked):
                if path.is_relative_to(self._context.home.quarantine):
                    twin = self._context.home.spool / path.relative_to(self._context.home.quarantine)
                    twin.unlink(missing_ok=True)

    def _checked(self, row: Row[Any]) -> list[Finding]:
        with self._context.engine.connect() as connection:
            route = route_named(self._context, row.route)
            if route is None:
                return [_flag("route-gone", f"the route {row.route} stands no more in the settings")]
            level = level_of(connection, self._context.settings)
            if "checks" not in layers_of(connection, route, level):
                return []
            try:
                past = self._parts.past(connection, self._context.identity)
                return list(self._parts.check_instance(Path(row.path), past))
            except Exception as error:  # noqa: BLE001 - a check that fails must not pass, nor stop the images
                return [_flag("check-failed", f"the object could not be checked: {type(error).__name__}")]

    def _put_away(self, row: Row[Any]) -> Path:
        """Link the file into quarantine; its name in the spool goes once the database knows."""
        path, home = Path(row.path), self._context.home
        place = path.relative_to(home.spool) if path.is_relative_to(home.spool) else Path(row.digest)
        kept = home.quarantine / place
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists() and path.exists():
            _linked(path, kept)
        return kept

    def _block(self, connection: Connection, row: Row[Any], found: list[Finding]) -> None:
        at = self._context.clock()
        before = select(verdicts.c.revision).where(
            verdicts.c.subject == row.sop_instance_uid, verdicts.c.subject_kind == "instance"
        )
        revision = max((one.revision for one in connection.execute(before)), default=-1) + 1
        verdict = Verdict(
            subject_kind="instance",
            subject=row.sop_instance_uid,
            input_digest=row.digest,
            outcome=Outcome.BLOCK,
            findings=tuple(found),
        )
        written.write(connection, verdict, route=row.route, revision=revision, at=at, object_id=row.id)


def _linked(path: Path, kept: Path) -> None:
    """Give a file a second, durable name; where that one is on another disk, a copy."""
    try:
        kept.hardlink_to(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = kept.with_name(f".{kept.name}.part")
        shutil.copyfile(path, partial)
        _sync(partial)
        partial.replace(kept)
    _sync(kept.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flag(rule: str, reason: str) -> Finding:
    return Finding(rule=rule, outcome=Outcome.FLAG, reason=reason)
