"""Audit rows of what happens below the level of objects; a flood of them is counted, not written."""

from __future__ import annotations

import logging

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context
from titer.guard.receive.pace import Bucket

_LOG = logging.getLogger(__name__)
_PER_SECOND = 10.0


class Alarms:
    """Writes security alerts, at most ten a second; each says how many were left out since the one before."""

    def __init__(self, context: Context) -> None:
        """Begin with none left out."""
        self._context = context
        self._bucket = Bucket(_PER_SECOND)
        self._left_out = 0

    def raise_(self, words: str, agent: str, host: str) -> None:
        """Record that something happened which may be an attack; does not wait for the disk."""
        if self._bucket.empty():
            self._left_out += 1
            return
        _LOG.warning("%s (%s)", words, host)
        self._bucket.take()
        detail = {"reason": words}
        if self._left_out:
            detail["left out before"] = str(self._left_out)
        self._left_out = 0
        at = self._context.clock()
        event = audit_event(
            Kind.SECURITY_ALERT,
            action="E",
            agent=agent or "unknown",
            at=at,
            result=Result.SERIOUS_FAILURE,
            detail=detail,
            network=host,
        )
        self._context.journal.submit(lambda connection: chain.append(connection, event, at))
