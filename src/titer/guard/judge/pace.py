"""How much an account may ask a model: requests in a minute, and rows in a day against copying it (AML.T0024.002)."""

from __future__ import annotations

import threading
from typing import Any

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context

EXTRACTION = "AML.T0024.002"


class TooMuch(Exception):  # noqa: N818 - says what happened
    """The account asked too much; `seconds` until it may ask again."""

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Pace:
    """Counts what accounts ask; in memory, so that a restart forgives."""

    def __init__(self, context: Context) -> None:
        """Begin with nothing asked."""
        self._context = context
        chosen = context.settings.judge
        self._minute = RateLimitItemPerMinute(chosen.requests_per_minute)
        self._day = RateLimitItemPerDay(chosen.queries_per_day)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._alarmed: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def take(self, account: str, model: str, rows: int) -> None:
        """Count a request of so many rows.

        Raises:
            TooMuch: it is one too many. Where the day's budget is spent, an alert is written, once an hour.
        """
        if not self._limiter.hit(self._minute, account, model):
            raise TooMuch(f"more than {self._minute.amount} requests in a minute", 60)
        if not self._limiter.hit(self._day, account, model, cost=rows):
            self._alarm(account, model)
            raise TooMuch(f"more than {self._day.amount} rows in a day: the query budget of this model is spent", 3600)

    def _alarm(self, account: str, model: str) -> None:
        at = self._context.clock()
        with self._lock:
            if at - self._alarmed.get((account, model), -3600.0) < 3600:
                return
            self._alarmed[(account, model)] = at
        detail = {
            "what": "query budget spent",
            "model": model,
            "rows_per_day": str(self._day.amount),
            "threat": EXTRACTION,
        }
        event: dict[str, Any] = audit_event(
            Kind.SECURITY_ALERT, action="E", agent=account, at=at, result=Result.SERIOUS_FAILURE, detail=detail
        )
        self._context.journal.write(lambda connection: chain.append(connection, event, at))
