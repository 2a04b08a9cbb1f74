"""Keeping house: the audit chain's checkpoints, and objects that have stood in the spool long enough."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update

from titer.guard.audit import atna, chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Context
from titer.guard.deliver.prepare import DOCUMENTS, uid_of
from titer.guard.deliver.queue import DEAD, OBJECT, WAITING, WITHHELD
from titer.guard.judge.verdicts import HELD
from titer.guard.store.tables import audit_head, checkpoints, marks, objects, outbox, verdicts

_DAY = 86_400.0
_LOOK = 1.0
_MOST = 500
_EXPORTED = "audit-exported"
_FOLDERS = ("results", "explanations")


class Keeper:
    """Signs the chain every so many rows or seconds, and deletes what has been judged and kept for its time."""

    name = "keeper"

    def __init__(self, context: Context) -> None:
        """Nothing runs yet."""
        self._context = context
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._trouble: str | None = None

    def start(self) -> None:
        """Sign what has no checkpoint yet, and go on."""
        self.sign()
        self._thread.start()

    def stop(self) -> None:
        """Sign what came last, and end."""
        self._ended.set()
        self._thread.join()
        self.sign()

    def trouble(self) -> str | None:
        """Say why the chain could not be signed, or files not be deleted."""
        return self._trouble

    def sign(self) -> chain.Checkpoint | None:
        """Sign the chain's end now, in the database and in the file outside it; None where nothing is new."""
        context, at = self._context, self._context.clock()
        made = context.journal.write(lambda connection: chain.checkpoint(connection, context.signer, at))
        if made is not None:
            chain.keep(context.home.checkpoints, made)
        return made

    def tidy(self) -> int:
        """Delete objects that were judged, delivered and kept for `spool.keep_days`, 500 at most; returns how many.

        What is quarantined, held for review or still to be delivered stays, given up or not. The row stays as well,
        as what was received has to be known; each deletion is an audit row.
        """
        context = self._context
        before = context.clock() - context.settings.spool.keep_days * _DAY
        with context.engine.connect() as connection:
            old = connection.execute(_old(before, self._destinations())).all()
        for row in old:
            context.journal.write(partial(self._deleted, row))
        if len(old) < _MOST:
            self._documents(before)
        return len(old)

    def _documents(self, before: float) -> None:
        """Delete reports and heat maps as old, which name or show patients, but those still to be delivered."""
        columns = (outbox.c.kind, outbox.c.digest, outbox.c.path)
        going = select(*columns).where(_going(self._destinations()), outbox.c.kind.in_(DOCUMENTS))
        with self._context.engine.connect() as connection:
            rows = connection.execute(going).all()
        kept = {f"{uid_of(row.kind, row.digest)}.dcm" for row in rows} | {
            Path(row.path).name for row in rows if row.path
        }
        for folder in _FOLDERS:
            for path in (self._context.home.root / folder).rglob("*"):
                if path.is_file() and path.stat().st_mtime < before and path.name not in kept:
                    path.unlink(missing_ok=True)

    def _destinations(self) -> list[str]:
        return [one.name for one in self._context.settings.destinations]

    def export(self) -> None:
        """Send new rows to the audit record repository of the settings; does nothing where they name none.

        Raises:
            OSError: it does not answer; the rows are sent the next time.
        """
        context, settings = self._context, self._context.settings.audit
        if settings.syslog is None or settings.syslog_authorities is None:
            return
        with context.engine.connect() as connection:
            sent = connection.execute(select(marks.c.value).where(marks.c.name == _EXPORTED)).scalar() or 0
            if (connection.execute(select(audit_head.c.seq)).scalar() or 0) == sent:
                return
            authorities = context.home.root / settings.syslog_authorities
            last = atna.export(connection, sent, settings.syslog, authorities)
        context.journal.write(partial(_mark, last))

    def _deleted(self, row: Row[tuple[int, str, str]], connection: Connection) -> None:
        """Delete one object; its file goes within the step, or an object that is sent again meanwhile would lose it."""
        at = self._context.clock()
        connection.execute(update(objects).where(objects.c.id == row.id).values(state="deleted"))
        Path(row.path).unlink(missing_ok=True)
        what = {"SOPInstanceUID": row.sop_instance_uid}
        chain.append(connection, audit_event(Kind.DELETED, action="D", agent="guard", at=at, what=what), at)

    def _run(self) -> None:
        signed = tidied = self._context.clock()
        while not self._ended.wait(_LOOK):
            try:
                now = self._context.clock()
                late = now - signed >= self._context.settings.audit.checkpoint_seconds
                if late or now < signed or self._unsigned() >= self._context.settings.audit.checkpoint_rows:
                    self.sign()
                    signed = now
                # What is left after 500 waits for the next look, and signing does not wait for all of it.
                if (now - tidied >= _DAY / 24 or now < tidied) and self.tidy() < _MOST:
                    tidied = now
                self.export()
                self._trouble = None
            except Exception as error:  # noqa: BLE001 - a full disk today must not end it for ever
                self._trouble = f"keeping house failed (signing, deleting or exporting): {type(error).__name__}"

    def _unsigned(self) -> int:
        with self._context.engine.connect() as connection:
            rows = connection.execute(select(audit_head.c.seq)).scalar() or 0
            last = connection.execute(select(func.max(checkpoints.c.seq))).scalar() or 0
        return int(rows) - int(last)


def _mark(last: int, connection: Connection) -> None:
    connection.execute(delete(marks).where(marks.c.name == _EXPORTED))
    connection.execute(insert(marks).values(name=_EXPORTED, value=last))


def _going(destinations: Sequence[str]) -> ColumnElement[bool]:
    """Select what waits or was given up, and may be sent again; a destination that is gone will never have it."""
    return outbox.c.state.in_((WAITING, DEAD)) & outbox.c.destination.in_(destinations)


def _old(before: float, destinations: Sequence[str]) -> Select[tuple[int, str, str]]:
    """Select objects to delete: judged, received before a time, not held, and with nothing still to be delivered.

    That is an image (one that was withheld may be sent again, too) and what results are made of.
    """
    withheld = (outbox.c.state == WITHHELD) & outbox.c.destination.in_(destinations)
    images = select(outbox.c.subject).where(_going(destinations) | withheld, outbox.c.kind == OBJECT)
    results = select(outbox.c.subject).where(_going(destinations), outbox.c.kind.in_(DOCUMENTS))
    held = select(verdicts.c.subject).where(verdicts.c.state == HELD)
    chosen = (
        select(objects.c.id, objects.c.sop_instance_uid, objects.c.path)
        .where(objects.c.state == "judged", objects.c.received_at < before)
        .where(objects.c.sop_instance_uid.not_in(images))
    )
    for kept in (results, held):
        chosen = chosen.where(objects.c.sop_instance_uid.not_in(kept), objects.c.series_instance_uid.not_in(kept))
    return chosen.limit(_MOST)
