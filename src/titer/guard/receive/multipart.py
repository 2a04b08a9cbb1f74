"""Multipart bodies as they stream in (RFC 2046, section 5.1; RFC 2387): no part is held whole."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message

from titer.core.errors import TiterError

_HEADER_BYTES = 16 << 10
_PREFIX = b"\r\n--"


class Garbled(TiterError):  # noqa: N818 - says what happened
    """No multipart body, or one that is cut off."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A part begins; its media type, lower case."""

    media_type: str


@dataclass(frozen=True, slots=True)
class End:
    """A part ends."""


Event = Begin | bytes | End


def boundary(content_type: str, wanted: str) -> str | None:
    """Return the boundary of a `multipart/related` of parts of type `wanted`; None where it is something else.

    Raises:
        Garbled: it is one, without a boundary that is allowed.
    """
    message = Message()
    message["content-type"] = content_type
    named = message.get_param("type")
    if message.get_content_type() != "multipart/related" or str(named or wanted).lower() != wanted:
        return None
    value = str(message.get_param("boundary") or "")
    if not re.fullmatch(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", value):
        raise Garbled("no boundary")
    return value


async def events(stream: AsyncIterator[bytes], name: str) -> AsyncIterator[Event]:
    """Yield what comes: Begin, then pieces of the part, then End; Garbled where the body is none."""
    scanner = _Scanner(_PREFIX + name.encode())
    async for block in stream:
        scanner.buffer += block
        for event in scanner.scan():
            yield event
    if not scanner.closed:
        raise Garbled("the body is cut off")


class _Scanner:
    """Where a body is: before the first part, in a part's headers, in its content, or behind the last."""

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self.buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning
        self._state = "before"
        self.closed = False

    def scan(self) -> list[Event]:
        """Return the events that the buffer holds, and leave in it what may be the beginning of another."""
        out: list[Event] = []
        while not self.closed:
            step = self._headers(out) if self._state == "headers" else self._content(out)
            if not step:
                break
        if self.closed:
            self.buffer.clear()  # an epilogue says nothing
        return out

    def _content(self, out: list[Event]) -> bool:
        inside = self._state == "content"
        at = self.buffer.find(self._delimiter)
        sure = at if at >= 0 else max(0, len(self.buffer) - len(self._delimiter) + 1)
        if inside and sure:
            out.append(bytes(self.buffer[:sure]))
        del self.buffer[:sure]
        tail = len(self._delimiter) + 2
        if at < 0 or len(self.buffer) < tail:
            return False
        after = bytes(self.buffer[tail - 2 : tail])
        if inside:
            out.append(End())
        self.closed = after == b"--"
        if not self.closed and after != b"\r\n":
            raise Garbled("a delimiter that does not end its line")
        del self.buffer[: tail - 2]  # the line end stays: it begins the headers, which may be none
        self._state = "headers"
        return True

    def _headers(self, out: list[Event]) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > _HEADER_BYTES:
                raise Garbled("headers that do not end")
            return False
        kind = "application/octet-stream"
        for line in bytes(self.buffer[:end]).decode("latin-1").split("\r\n"):
            field, _, value = line.partition(":")
            if field.strip().lower() == "content-type":
                kind = value.partition(";")[0].strip().lower()
        out.append(Begin(kind))
        del self.buffer[: end + 4]
        self._state = "content"
        return True
