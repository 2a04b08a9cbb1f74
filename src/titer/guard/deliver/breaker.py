"""When to try again: pauses with full jitter for an item, a circuit breaker for a destination."""

from __future__ import annotations

import random
from enum import StrEnum

from titer.guard.settings import DestinationSettings

_MOST_DOUBLINGS = 30


class State(StrEnum):
    """Closed: everything is sent. Open: nothing is. Half-open: one item tries whether the peer is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


def pause(settings: DestinationSettings, tries: int, rng: random.Random) -> float:
    """Return how long to wait after a number of failed tries, seconds, 0 to `longest_pause_seconds`.

    Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS, 2015): many items that failed
    at the same moment do not come back at the same moment.
    """
    longest = settings.retry_seconds * 2.0 ** min(max(tries - 1, 0), _MOST_DOUBLINGS)
    return rng.uniform(0.0, min(longest, settings.longest_pause_seconds))


class Breaker:
    """A destination's circuit breaker (Nygard, Release It!, 2018): a peer that is down is left alone for a while."""

    def __init__(self, settings: DestinationSettings, rng: random.Random) -> None:
        """Begin closed: everything may pass."""
        self._settings = settings
        self._rng = rng
        self._failures = 0
        self._trips = 0
        self._until = 0.0

    def state(self, now: float) -> State:
        """Return the state at a time, seconds UTC."""
        if self._trips == 0:
            return State.CLOSED
        left = self._until - now
        # A clock that was set back would keep the way shut for as long as it was set back.
        return State.OPEN if 0 < left <= self._settings.longest_pause_seconds else State.HALF_OPEN

    def succeeded(self) -> None:
        """Note that the peer answered."""
        self._failures = self._trips = 0

    def failed(self, now: float, wait: float | None = None) -> None:
        """Note that it did not; `wait` is what it asked for itself."""
        self._failures += 1
        if self._trips or self._failures >= self._settings.failures_to_open:
            self._trips += 1
            drawn = pause(self._settings, self._trips + 1, self._rng)
            shortest = self._settings.retry_seconds / 2  # full jitter may draw 0, which would be no pause at all
            asked = max(drawn, shortest, wait or 0.0)
            self._until = now + min(asked, self._settings.longest_pause_seconds)
