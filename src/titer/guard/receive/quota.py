"""How much one sender may store in a day, so that none fills the disk for the others."""

from __future__ import annotations

import threading

from sqlalchemy import func, select

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context
from titer.guard.store.tables import objects, received

DAY = 86_400.0
_MiB = 1 << 20


class Quotas:
    """Counts the bytes of each sender on each day (UTC); what the database holds of today counts after a restart."""

    def __init__(self, context: Context) -> None:
        """Begin with nothing counted."""
        self._context = context
        self._most = context.settings.spool.sender_mib_per_day * _MiB
        self._used: dict[tuple[str, int], int] = {}
        self._alarmed: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def take(self, sender: str, size: int) -> bool:
        """Count an object of so many bytes; whether the sender's day still holds it. No quota holds everything.

        An object that does not fit is not counted: a smaller one may. The first of a day raises an alert.
        """
        if not self._most:
            return True
        key = (sender, int(self._context.clock() // DAY))
        with self._lock:
            used = self._used[key] if key in self._used else self._stored(*key)
            fits = used + size <= self._most
            self._used = {one: value for one, value in self._used.items() if one[1] >= key[1] - 1}
            self._used[key] = used + size if fits else used
            alarm = not fits and key not in self._alarmed
            self._alarmed = {one for one in self._alarmed if one[1] >= key[1] - 1} | ({key} if alarm else set())
        if alarm:
            self._alarm(sender)
        return fits

    def _stored(self, sender: str, day: int) -> int:
        during = received(day * DAY, (day + 1) * DAY)
        asked = select(func.sum(objects.c.size)).where(objects.c.calling_ae == sender, during)
        with self._context.engine.connect() as connection:
            return int(connection.execute(asked).scalar() or 0)

    def _alarm(self, sender: str) -> None:
        at = self._context.clock()
        detail = {"what": "storage quota spent", "mib_per_day": str(self._most // _MiB)}
        event = audit_event(
            Kind.SECURITY_ALERT, action="E", agent=sender, at=at, result=Result.SERIOUS_FAILURE, detail=detail
        )
        self._context.journal.submit(lambda connection: chain.append(connection, event, at))
