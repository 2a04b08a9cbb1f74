"""The head of a DICOM file (PS3.10, section 7.1): what it says of the object, and where its data set begins."""

from __future__ import annotations

import struct

from titer.guard.checks.light import Claim, valid_uid
from titer.guard.checks.walk import Unreadable

_PREAMBLE = 128
META_BYTES = 64 << 10
"""Longest file meta information that is read."""
_SHORT = struct.Struct("<HH2sH")
_LONG_VALUES = (b"OB", b"UN", b"OW", b"UT")
_GROUP = 0x0002
_CLASS, _INSTANCE, _SYNTAX = 0x02, 0x03, 0x10


def head(content: bytes | bytearray) -> tuple[Claim, int] | None:
    """Read the head of a file; None where more bytes are needed, Unreadable where it is none.

    The preamble is skipped whatever it holds, and the meta information gives three UIDs: both are written anew. Its
    length (0002,0000) is not needed: some senders leave it out.
    """
    if len(content) < _PREAMBLE + 4:
        return None
    if content[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise Unreadable("no DICOM file")
    found: dict[int, bytes] = {}
    at, before = _PREAMBLE + 4, -1
    while (element := _element(content, at)) is not None:
        tag, start, length = element
        if tag >> 16 != _GROUP:
            return _claim(found), at
        if tag <= before or start + length > META_BYTES:
            raise Unreadable("file meta information out of order, or too long")
        if start + length > len(content):
            return None
        found[tag & 0xFFFF] = bytes(content[start : start + length])
        at, before = start + length, tag
    return None


def _element(content: bytes | bytearray, at: int) -> tuple[int, int, int] | None:
    """Return tag, start and length of the element at a place; None where more bytes are needed."""
    if at + 12 > len(content):
        return None
    group, element, kind, length = _SHORT.unpack_from(content, at)
    if kind in _LONG_VALUES:
        return group << 16 | element, at + 12, int.from_bytes(content[at + 8 : at + 12], "little")
    return group << 16 | element, at + 8, length


def _claim(found: dict[int, bytes]) -> Claim:
    uids = [found.get(tag, b"").rstrip(b"\0 ").decode("latin-1") for tag in (_CLASS, _INSTANCE, _SYNTAX)]
    if not all(valid_uid(one) for one in uids):
        raise Unreadable("file meta information without its UIDs")
    return Claim(sop_class_uid=uids[0], sop_instance_uid=uids[1], transfer_syntax_uid=uids[2])
