"""How fast a peer may go."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """A token bucket: `rate` a second, and one second's worth at once."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        """Begin with a full bucket."""
        self._rate = rate
        self._most = max(rate, 1.0)
        self._tokens = self._most
        self._now = now
        self._at = now()

    def take(self) -> float:
        """Take one token; returns how many seconds to wait before its use."""
        self._fill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def empty(self) -> bool:
        """Whether no token is left now."""
        self._fill()
        return self._tokens < 1

    def _fill(self) -> None:
        at = self._now()
        self._tokens = min(self._most, self._tokens + (at - self._at) * self._rate)
        self._at = at


class Buckets:
    """One bucket per peer, shared by its associations; peers that have been quiet are forgotten."""

    _MOST = 1024

    def __init__(self) -> None:
        """Begin with none."""
        self._buckets: dict[str, Bucket] = {}

    def of(self, peer: str, rate: float) -> Bucket:
        """Return a peer's bucket."""
        if peer not in self._buckets:
            if len(self._buckets) >= self._MOST:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[peer] = Bucket(rate)
        return self._buckets[peer]
