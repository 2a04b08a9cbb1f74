"""The workers of one guard, one for each bundle; every part of the guard in this process asks the same ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.judge.bundle import MANIFEST
from titer.guard.judge.runtime import Opener, open_bundle
from titer.guard.judge.worker import Worker

_LOCK = threading.Lock()
_SHARED: dict[str, Workers] = {}


class Workers:
    """Workers by the name of their bundle's folder, made when first asked for."""

    def __init__(self, context: Context, opener: Opener = open_bundle) -> None:
        """Make none yet."""
        self._context, self._opener = context, opener
        self._made: dict[str, Worker] = {}
        self._lock = threading.Lock()

    def worker(self, name: str) -> Worker:
        """Return the worker of a bundle.

        Raises:
            SpecError: no bundle of this name stands among the guard's models.
        """
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise SpecError(f"model = {name!r} is no bundle of this guard: allowed are {known}")
        with self._lock:
            if name not in self._made:
                self._made[name] = Worker(self._context.home.models / name, self._context.settings.judge, self._opener)
            return self._made[name]

    def names(self) -> list[str]:
        """Return the names of all bundles of the guard."""
        return sorted(path.parent.name for path in self._context.home.models.glob(f"*/{MANIFEST}"))

    def troubles(self) -> list[str]:
        """Return what keeps workers from answering."""
        found = {name: worker.trouble() for name, worker in self._made.items()}
        return [f"model {name}: {reason}" for name, reason in sorted(found.items()) if reason is not None]

    def stop(self) -> None:
        """End all of them."""
        with self._lock:
            for worker in self._made.values():
                worker.stop()
            self._made.clear()


def share(context: Context, workers: Workers) -> None:
    """Let every part of this process that has the same guard ask these workers."""
    with _LOCK:
        _SHARED[str(context.home.root)] = workers


def unshare(context: Context) -> None:
    """Take the workers of a guard back."""
    with _LOCK:
        _SHARED.pop(str(context.home.root), None)


@contextmanager
def workers_of(context: Context) -> Iterator[Workers]:
    """Give the workers that the judge shares, or some for the time being where none runs."""
    with _LOCK:
        shared = _SHARED.get(str(context.home.root))
    if shared is not None:
        yield shared
        return
    own = Workers(context)
    try:
        yield own
    finally:
        own.stop()
