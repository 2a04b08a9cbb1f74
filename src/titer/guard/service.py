"""A running guard: all its parts in one process."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from titer.core.errors import SpecError
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.context import Component, Context, opened
from titer.guard.home import Home
from titer.guard.settings import load

Maker = Callable[[Context], Component]


def components() -> Sequence[Maker]:
    """Return what makes each part, in the order in which they start; they stop in the opposite one.

    Who takes work starts before who gives it, and the keeper stops last, as it signs what the others wrote.
    """
    from titer.guard.deliver.component import Deliverer
    from titer.guard.judge.component import Judge
    from titer.guard.operate.keeper import Keeper
    from titer.guard.receive.component import Receiver

    return (Keeper, Deliverer, Judge, Receiver, _web)


def _web(context: Context) -> Component:
    """Make the pages, with the interfaces that other parts offer over HTTP."""
    from titer.guard.judge import inference_api
    from titer.guard.receive import dicomweb
    from titer.guard.web.component import Web

    return Web(context, others=(dicomweb.router, inference_api.router))


class Service:
    """Starts the parts of a guard, and stops them."""

    def __init__(self, context: Context, makers: Sequence[Maker]) -> None:
        """Make the parts; none runs yet."""
        self.context = context
        self.parts = [make(context) for make in makers]
        context.parts[:] = self.parts

    def start(self) -> None:
        """Start every part; where one cannot, those that run are stopped."""
        started: list[Component] = []
        try:
            for part in self.parts:
                part.start()
                started.append(part)
        except BaseException:
            for part in reversed(started):
                part.stop()
            raise
        self._note("start")

    def stop(self) -> None:
        """Stop every part."""
        for part in reversed(self.parts):
            part.stop()
        self._note("stop")

    def addresses(self) -> list[str]:
        """Return where it listens, one line each."""
        dicom, web = self.context.settings.dicom, self.context.settings.web
        scheme = "https" if web.tls else "http"
        return [f"DICOM: {dicom.ae_title}@{dicom.host}:{dicom.port}", f"pages: {scheme}://{web.host}:{web.port}/"]

    def _note(self, what: str) -> None:
        at = self.context.clock()
        event = audit_event(Kind.APPLICATION, action="E", agent="guard", at=at, detail={"what": what})
        self.context.journal.write(lambda connection: chain.append(connection, event, at))


def run(home: Home, started: Callable[[Service], Any] = lambda _: None) -> None:
    """Run a guard until it is told to stop (SIGINT, SIGTERM).

    Args:
        home: its folder.
        started: called once everything runs, for instance to print addresses.

    Raises:
        SpecError: the settings cannot work, or another process runs this guard.
    """
    from titer.guard.web.logs import configure

    configure()
    settings = load(home)
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    with _alone(home):
        context = opened(home, settings)
        try:
            service = Service(context, components())
            service.start()
            started(service)
            ended.wait()
            service.stop()
        finally:
            context.close()


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the guard's folder: two processes would deliver everything twice."""
    with home.lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SpecError(f"{home.root}: another process runs this guard") from None
        yield
