"""Protocol data units of the upper layer (PS3.8, section 9.3): a strict parser of what comes, makers of what goes.

Nothing here reads from a socket or allocates by a length that a peer claims: the caller caps lengths first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from titer.core.errors import TiterError
from titer.guard.checks.light import valid_uid

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
ASSOCIATION_BYTES = 64 << 10
"""Longest A-ASSOCIATE-RQ that is read."""
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_UID = "2.25.20328752961049761532186284835610187457"
IMPLEMENTATION_VERSION = "TITER-GUARD"
HEADER = struct.Struct(">BxI")
_ITEM = struct.Struct(">BxH")
_FIXED = struct.Struct(">H2x16s16s32x")
_PDV = struct.Struct(">IBB")
_CONTEXTS = 128

ACCEPTANCE, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 3, 4
"""Results of a presentation context (PS3.8, table 9-18)."""


class Violation(TiterError):  # noqa: N818 - says what happened
    """A peer breaks the protocol; `reason` is the one that its A-ABORT gives (PS3.8, section 9.3.8)."""

    UNRECOGNIZED, UNEXPECTED, BAD_PARAMETER, INVALID_VALUE = 1, 2, 5, 6

    def __init__(self, message: str, reason: int) -> None:
        """Say what is wrong, and the code of it."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A presentation context that a peer proposes."""

    number: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An A-ASSOCIATE-RQ."""

    called_ae: str
    calling_ae: str
    application_context: str
    proposals: tuple[Proposal, ...]
    max_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What becomes of one proposed presentation context."""

    number: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One presentation data value: a fragment of a command or of a data set (PS3.8, annex E)."""

    context: int
    command: bool
    last: bool
    fragment: memoryview


def request(body: bytes) -> Request:
    """Parse the body of an A-ASSOCIATE-RQ; Violation where it is none."""
    if len(body) < _FIXED.size:
        raise Violation("an association request that is too short", Violation.BAD_PARAMETER)
    version, called, calling = _FIXED.unpack_from(body)
    if not version & 1:
        raise Violation("another version of the protocol", Violation.BAD_PARAMETER)
    application, proposals, length = "", [], 0
    for kind, content in _items(memoryview(body)[_FIXED.size :]):
        if kind == 0x10:
            application = _uid(content)
        elif kind == 0x20:
            proposals.append(_proposal(content))
        elif kind == 0x50:
            length = _max_length(content)
    numbers = [one.number for one in proposals]
    if not proposals or len(proposals) > _CONTEXTS or len(set(numbers)) < len(numbers):
        raise Violation("no presentation contexts, too many, or one twice", Violation.INVALID_VALUE)
    return Request(
        called_ae=_title(called),
        calling_ae=_title(calling),
        application_context=application,
        proposals=tuple(proposals),
        max_length=length,
    )


def _items(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(content):
        if at + _ITEM.size > len(content):
            raise Violation("an item that is cut off", Violation.BAD_PARAMETER)
        kind, length = _ITEM.unpack_from(content, at)
        at += _ITEM.size
        if at + length > len(content):
            raise Violation("an item that is longer than what holds it", Violation.BAD_PARAMETER)
        yield kind, content[at : at + length]
        at += length


def _proposal(content: memoryview) -> Proposal:
    if len(content) < 4 or not content[0] & 1:
        raise Violation("a presentation context without an odd number", Violation.INVALID_VALUE)
    abstract, transfers = [], []
    for kind, uid in _items(content[4:]):
        if kind == 0x30:
            abstract.append(_uid(uid))
        elif kind == 0x40:
            transfers.append(_uid(uid))
        else:
            raise Violation("an item that no presentation context has", Violation.BAD_PARAMETER)
    if len(abstract) != 1 or not transfers:
        raise Violation("a presentation context without its syntaxes", Violation.BAD_PARAMETER)
    return Proposal(number=content[0], abstract_syntax=abstract[0], transfer_syntaxes=tuple(transfers))


def _max_length(content: memoryview) -> int:
    for kind, value in _items(content):
        if kind == 0x51:
            if len(value) != 4:
                raise Violation("a maximum length that is no number", Violation.INVALID_VALUE)
            return int.from_bytes(value, "big")
    return 0


def _uid(content: memoryview) -> str:
    value = bytes(content).rstrip(b"\0 ").decode("latin-1")
    if not valid_uid(value):
        raise Violation("a syntax whose name is no UID", Violation.INVALID_VALUE)
    return value


def _title(raw: bytes) -> str:
    title = raw.decode("latin-1").strip(" \0")
    if not title or not title.isascii() or not title.isprintable() or "\\" in title:
        raise Violation("an application entity title that is none", Violation.INVALID_VALUE)
    return title


def values(body: bytes) -> Iterator[Value]:
    """Yield the presentation data values of a P-DATA-TF's body; Violation where they do not fill it."""
    view, at = memoryview(body), 0
    while at < len(view):
        if at + _PDV.size > len(view):
            raise Violation("a data value that is cut off", Violation.BAD_PARAMETER)
        length, context, control = _PDV.unpack_from(view, at)
        end = at + 4 + length
        if length < 2 or end > len(view) or control > 3:
            raise Violation("a data value that is longer than what holds it", Violation.BAD_PARAMETER)
        fragment = view[at + _PDV.size : end]
        yield Value(context=context, command=bool(control & 1), last=bool(control & 2), fragment=fragment)
        at = end


def accept(asked: Request, answers: Sequence[Answer], max_length: int) -> bytes:
    """Return an A-ASSOCIATE-AC."""
    titles = (asked.called_ae.ljust(16).encode(), asked.calling_ae.ljust(16).encode())
    body = [_FIXED.pack(1, *titles), _item(0x10, APPLICATION_CONTEXT.encode())]
    for one in answers:
        syntax = _item(0x40, one.transfer_syntax.encode())
        body.append(_item(0x21, bytes((one.number, 0, one.result, 0)) + syntax))
    user = (
        _item(0x51, max_length.to_bytes(4, "big"))
        + _item(0x52, IMPLEMENTATION_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION.encode())
    )
    body.append(_item(0x50, user))
    return unit(ASSOCIATE_AC, b"".join(body))


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ (PS3.8, section 9.3.4)."""
    return unit(ASSOCIATE_RJ, bytes((0, result, source, reason)))


def abort(reason: int) -> bytes:
    """Return an A-ABORT of the service provider."""
    return unit(ABORT, bytes((0, 0, 2, reason)))


def release_reply() -> bytes:
    """Return an A-RELEASE-RP."""
    return unit(RELEASE_RP, bytes(4))


def data(context: int, command: bytes, dataset: bytes | None, peers_limit: int) -> bytes:
    """Return the P-DATA-TFs of a message, none longer than the peer takes (0: any length)."""
    room = max(peers_limit - _PDV.size, 2) if peers_limit else 1 << 17
    out = []
    for content, control in ((command, 1), (dataset, 0)):
        if content is None:
            continue
        for at in range(0, max(len(content), 1), room):
            piece = content[at : at + room]
            last = 2 if at + room >= len(content) else 0
            out.append(unit(DATA, _PDV.pack(len(piece) + 2, context, control | last) + piece))
    return b"".join(out)


def unit(kind: int, body: bytes) -> bytes:
    """Return a protocol data unit."""
    return HEADER.pack(kind, len(body)) + body


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, len(content)) + content
