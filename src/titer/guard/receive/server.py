"""The port: accepts connections, keeps those that have not asked for an association few, and ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from functools import partial

from titer.guard.receive.association import Association, Desk

WAITING_ROOM = 256
"""Most connections that have not asked for an association yet; where one more comes, the oldest of the address that
has most of them is closed."""
_LAST_SECONDS = 5.0
_STREAM_BYTES = 64 << 10
_LOG = logging.getLogger(__name__)


class _Prompt(asyncio.StreamReaderProtocol):
    """Acknowledges each segment at once: a sender that waits for that (Nagle's algorithm) else loses up to 40 ms."""

    def __init__(self, reader: asyncio.StreamReader, connected: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._connected = connected

    def data_received(self, data: bytes) -> None:
        """Take what came; Linux forgets the option after some segments, so it is set each time."""
        super().data_received(data)
        if hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):  # the peer may have gone
                self._connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Connection:
    """A socket and what serves it."""

    __slots__ = ("association", "host", "task")

    def __init__(self, host: str) -> None:
        self.host = host
        self.association: Association | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> bool:
        return self.association is None or self.association.waiting


class Server:
    """Serves a listening socket."""

    def __init__(self, listener: socket.socket, desk: Desk, tls: ssl.SSLContext | None) -> None:
        """Take the socket, which listens and does not block."""
        self._listener, self._desk, self._tls = listener, desk, tls
        self._connections: dict[_Connection, None] = {}

    async def run(self, ended: asyncio.Event) -> None:
        """Accept until `ended` is set, then let objects that are being stored finish, and close."""
        accepting = asyncio.create_task(self._accept())
        await ended.wait()
        accepting.cancel()
        self._listener.close()
        await self._finish()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, address = await loop.sock_accept(self._listener)
            except OSError as error:  # too many open files: others may close theirs
                _LOG.error("a connection was not accepted: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            self._make_room()
            connection = _Connection(str(address[0]))
            self._connections[connection] = None
            connection.task = asyncio.create_task(self._serve(connection, connected))
            connection.task.add_done_callback(partial(self._ended, connection, connected))

    def _ended(self, connection: _Connection, connected: socket.socket, _task: asyncio.Task[None]) -> None:
        """Forget a connection; what was cancelled before it began has nobody else to close its socket."""
        self._connections.pop(connection, None)
        if connection.association is None:
            connected.close()

    def _make_room(self) -> None:
        waiting = [one for one in self._connections if one.waiting]
        if len(waiting) < WAITING_ROOM:
            return
        [(crowded, _count)] = Counter(one.host for one in waiting).most_common(1)
        oldest = next(one for one in waiting if one.host == crowded)
        del self._connections[oldest]
        assert oldest.task is not None
        oldest.task.cancel()

    async def _serve(self, connection: _Connection, connected: socket.socket) -> None:
        try:
            reader, writer = await self._streams(connected)
            connection.association = Association(reader, writer, self._desk, connection.host)
            await connection.association.serve()
        except (OSError, EOFError, TimeoutError) as error:  # a handshake that fails: another authority, no TLS, silence
            self._desk.alarms.raise_(f"connection refused: {_kind(error)}", "", connection.host)
        except Exception:  # noqa: BLE001 - one association must not end the others
            _LOG.exception("an association failed")

    async def _streams(self, connected: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=max(_STREAM_BYTES, self._desk.settings.max_pdu // 2), loop=loop)
        protocol = _Prompt(reader, connected, loop)
        seconds = self._desk.settings.request_seconds
        if self._tls:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, connected, ssl=self._tls, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=1.0
            )
        else:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connected)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _finish(self) -> None:
        """Wait for objects in hand, then end every connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                while any(one.association and one.association.busy for one in self._connections):
                    await asyncio.sleep(0.02)
        tasks = [one.task for one in self._connections if one.task]
        for task in tasks:
            task.cancel()
        self._desk.commitments.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _kind(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'no handshake').lower().replace('_', ' ')}"
    return type(error).__name__
