"""What every part of a running guard shares."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Engine

from titer.guard.home import Home
from titer.guard.keys import IDENTITY, Signer, read
from titer.guard.settings import GuardSettings
from titer.guard.store.database import connect
from titer.guard.store.journal import Journal
from titer.guard.store.migrate import upgrade


class Component(Protocol):
    """A part that runs: it starts at once and works in threads of its own until it is stopped."""

    name: str

    def start(self) -> None:
        """Begin; raises SpecError where its settings cannot work (a port in use, a model that is not there)."""

    def stop(self) -> None:
        """Finish what is begun, and end; returns when its threads have ended."""

    def trouble(self) -> str | None:
        """What keeps it from working, for the readiness page; None where nothing does."""


class Bell:
    """Wakes the parts that wait for new rows; who misses a ring looks again after its time-out anyway."""

    def __init__(self) -> None:
        """Begin with silence."""
        self._condition = threading.Condition()
        self._rung: dict[str, int] = {}

    def ring(self, name: str) -> None:
        """Say that there is something new."""
        with self._condition:
            self._rung[name] = self._rung.get(name, 0) + 1
            self._condition.notify_all()

    def wait(self, name: str, heard: int, timeout: float) -> int:
        """Wait until it was rung more often than `heard`, or `timeout` seconds; returns how often it was rung."""
        with self._condition:
            self._condition.wait_for(lambda: self._rung.get(name, 0) > heard, timeout)
            return self._rung.get(name, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Settings, keys and the database of one guard; `clock` gives seconds UTC and is a test's to turn.

    `parts` are the components that run, for the readiness page.
    """

    home: Home
    settings: GuardSettings
    engine: Engine
    journal: Journal
    signer: Signer
    identity: bytes
    clock: Callable[[], float] = time.time
    bell: Bell = field(default_factory=Bell)
    parts: list[Component] = field(default_factory=list)

    def close(self) -> None:
        """Write what is queued and let the database go."""
        self.journal.close()
        self.engine.dispose()


def opened(home: Home, settings: GuardSettings, clock: Callable[[], float] = time.time) -> Context:
    """Open the database and keys of a guard.

    Raises:
        SpecError: a key is missing, or the database is not allowed.
    """
    signer, identity = Signer(home.keys), read(home.keys / IDENTITY)
    engine = connect(home, settings.database)
    upgrade(engine)
    return Context(
        home=home,
        settings=settings,
        engine=engine,
        journal=Journal(engine),
        signer=signer,
        identity=identity,
        clock=clock,
    )
