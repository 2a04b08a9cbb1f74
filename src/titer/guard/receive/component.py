"""The receiving part of a guard: a thread that serves the DICOM port, and threads that store what comes in."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from titer.core.errors import SpecError
from titer.guard.audit import chain
from titer.guard.audit.events import Kind, Result, audit_event
from titer.guard.context import Context
from titer.guard.receive.alarms import Alarms
from titer.guard.receive.association import Desk
from titer.guard.receive.commitment import Commitments
from titer.guard.receive.intake import Intake, no_fault
from titer.guard.receive.pace import Buckets
from titer.guard.receive.policy import Policy
from titer.guard.receive.server import Server
from titer.guard.receive.transport import server_context

_BACKLOG = 512
_WORKERS = 8
_PIECES_BYTES, _PIECE_LEAST, _PIECE_MOST = 24 << 20, 128 << 10, 1 << 20
"""Memory for pieces of objects of all associations, and the bounds of one piece."""
_LOG = logging.getLogger(__name__)


class Receiver:
    """Receives objects by DICOM (C-STORE), answers C-ECHO, commits to storage."""

    name = "receive"

    def __init__(self, context: Context, port: int | None = None, faults: Callable[[str], None] = no_fault) -> None:
        """Open nothing yet.

        Args:
            context: of the guard.
            port: in place of the settings'; 0 takes one that is free.
            faults: called at the points of an object's way, where a test may end the process.
        """
        self._context = context
        self.port = context.settings.dicom.port if port is None else port
        self.intake = Intake(context, faults)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    def start(self) -> None:
        """Recover from the last stop, bind, and serve; SpecError where the settings cannot work."""
        settings = self._context.settings.dicom
        policy = Policy(settings)
        tls = server_context(settings.tls, self._context.home.root) if settings.tls else None
        self._recover()
        listener = self._listen()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, policy, tls, ready)), name="receive", daemon=True
        )
        self._thread.start()
        ready.wait()

    def _recover(self) -> None:
        for problem in self.intake.recover():
            _LOG.error("%s", problem)
            at = self._context.clock()
            event = audit_event(
                Kind.SECURITY_ALERT,
                action="E",
                agent="guard",
                at=at,
                result=Result.SERIOUS_FAILURE,
                detail={"reason": problem},
            )
            self._context.journal.write(partial(chain.append, event=event, at=at))

    def _listen(self) -> socket.socket:
        settings = self._context.settings.dicom
        try:
            family = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((settings.host, self.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise SpecError(f"dicom.port = {self.port}: {settings.host} cannot be bound: {error.strerror}") from None
        listener.setblocking(False)
        self.port = int(listener.getsockname()[1])
        return listener

    async def _serve(
        self, listener: socket.socket, policy: Policy, tls: ssl.SSLContext | None, ready: threading.Event
    ) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        settings = self._context.settings.dicom
        with ThreadPoolExecutor(min(settings.associations, _WORKERS), thread_name_prefix="store") as pool:
            commitments = Commitments(self._context, pool, policy)
            desk = Desk(
                settings=settings,
                policy=policy,
                intake=self.intake,
                pool=pool,
                buckets=Buckets(),
                alarms=Alarms(self._context),
                commitments=commitments,
                piece_bytes=min(max(_PIECES_BYTES // settings.associations, _PIECE_LEAST), _PIECE_MOST),
            )
            commitments.resume()
            ready.set()
            await Server(listener, desk, tls).run(self._ended)

    def stop(self) -> None:
        """Accept nothing more, let objects in hand finish, and end."""
        if self._thread is None or self._loop is None or self._ended is None:
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._thread = None

    def trouble(self) -> str | None:
        """What keeps objects from coming in."""
        if self._thread is None or not self._thread.is_alive():
            return "the DICOM port is not served"
        return "the disk is too full to receive" if self.intake.spool.full() else None
