"""A strict walk over the elements of a data set (PS3.5, section 7): lengths, order, nesting; values are not decoded."""

from __future__ import annotations

import struct
from typing import Any

from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.charset import convert_encodings, decode_bytes, python_encoding

from titer.core.errors import TiterError

IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_NATIVE = (IMPLICIT, BIG_ENDIAN, "1.2.840.10008.1.2.1")
_NOT_WALKED = ("Deflated", "JPIP", "Papyrus", "RFC 2557", "XML", "SMPTE")
"""Transfer syntaxes whose data set is compressed as a whole, elsewhere, or no data set."""
ENCAPSULATED = frozenset(
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "Transfer Syntax" and uid not in _NATIVE and not any(word in name for word in _NOT_WALKED)
)
TRANSFER_SYNTAXES = frozenset(_NATIVE) | ENCAPSULATED
"""What the guard receives."""

DEPTH = 32
"""Most levels of sequences inside each other; a structured report has about ten."""
ELEMENTS = 500_000
"""Most elements and items of one object, at every level."""
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET, _PIXEL_DATA = 0x00080005, 0x7FE00010
_KEPT_GROUPS = frozenset((0x0008, 0x0010, 0x0020, 0x0028, 0x7FE0))
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_ORDER = {True: (struct.Struct(">HH"), struct.Struct(">H"), struct.Struct(">I")),
          False: (struct.Struct("<HH"), struct.Struct("<H"), struct.Struct("<I"))}  # fmt: skip


class Unreadable(TiterError):  # noqa: N818 - says what happened
    """No data set, or one that a reader must not be given."""


class _Level:
    """A data set or a sequence that the walk is inside of."""

    __slots__ = ("end", "implicit", "last", "sequence", "undefined")

    def __init__(self, end: int, *, undefined: bool, sequence: bool, implicit: bool) -> None:
        self.end = end
        self.undefined = undefined
        self.sequence = sequence
        self.implicit = implicit
        self.last = -1


class Walk:
    """Finds the elements of the outermost level: tag -> (start, length, of undefined length) of its value."""

    def __init__(self, content: Any, syntax: str) -> None:
        """Take the content, and the transfer syntax UID that it is said to have."""
        if syntax not in TRANSFER_SYNTAXES:
            raise Unreadable("a transfer syntax that is not received")
        self.syntax = syntax
        self.found: dict[int, tuple[int, int, bool]] = {}
        self._content = content
        self._tag, self._u16, self._u32 = (one.unpack_from for one in _ORDER[syntax == BIG_ENDIAN])
        self._levels: list[_Level] = []
        self._left = ELEMENTS

    def value(self, tag: int) -> bytes | None:
        """Return the bytes of an element; None where it is not there."""
        place = self.found.get(tag)
        return None if place is None else bytes(self._content[place[0] : place[0] + place[1]])

    def run(self, start: int, end: int) -> None:
        """Walk over everything from `start` to `end`; Unreadable where that is no data set."""
        self._levels = [_Level(end, undefined=False, sequence=False, implicit=self.syntax == IMPLICIT)]
        at = start
        while self._levels:
            level = self._levels[-1]
            if at == level.end and not level.undefined:
                self._levels.pop()
                continue
            if at + 8 > level.end:
                raise Unreadable("it ends inside an element")
            self._left -= 1
            if self._left < 0:
                raise Unreadable("too many elements")
            group, element = self._tag(self._content, at)
            tag = group << 16 | element
            at = self._item(level, tag, at) if level.sequence or group == 0xFFFE else self._element(level, tag, at)

    def _item(self, level: _Level, tag: int, at: int) -> int:
        (length,) = self._u32(self._content, at + 4)
        if tag == _ITEM and level.sequence:
            self._enter(level, at + 8, length, sequence=False, implicit=level.implicit)
        elif level.undefined and length == 0 and tag == (_SEQUENCE_END if level.sequence else _ITEM_END):
            self._levels.pop()
        else:
            raise Unreadable("a delimiter where none may be")
        return at + 8

    def _element(self, level: _Level, tag: int, at: int) -> int:
        if tag <= level.last:
            raise Unreadable("elements out of order, or twice")
        if tag < 0x00080000:
            raise Unreadable("an element of a group that no data set has")
        level.last = tag
        start, length, kind = self._implicit(tag, at) if level.implicit else self._explicit(level, at)
        if length == UNDEFINED:
            return self._undefined(level, tag, start, kind)
        if start + length > level.end:
            raise Unreadable("an element is longer than what holds it")
        if len(self._levels) == 1 and tag >> 16 in _KEPT_GROUPS:
            self.found[tag] = (start, length, False)
        if kind == b"SQ" and length:
            self._enter(level, start, length, sequence=True, implicit=level.implicit)
            return start
        return start + length

    def _implicit(self, tag: int, at: int) -> tuple[int, int, bytes]:
        return at + 8, self._u32(self._content, at + 4)[0], b"SQ" if tag in _SEQUENCES else b""

    def _explicit(self, level: _Level, at: int) -> tuple[int, int, bytes]:
        kind = bytes(self._content[at + 4 : at + 6])
        if kind in _SHORT:
            return at + 8, self._u16(self._content, at + 6)[0], kind
        if kind not in _LONG:
            raise Unreadable("a value representation that does not exist")
        if at + 12 > level.end:
            raise Unreadable("it ends inside an element")
        return at + 12, self._u32(self._content, at + 8)[0], kind

    def _undefined(self, level: _Level, tag: int, start: int, kind: bytes) -> int:
        """Go into a sequence without a length, or over fragments of pixel data."""
        if tag == _PIXEL_DATA:
            end = self._fragments(start, level.end)
            if len(self._levels) == 1:
                self.found[tag] = (start, end - start, True)
            return end
        if kind not in (b"SQ", b"UN", b""):
            raise Unreadable("an element of undefined length that is no sequence")
        # of value representation UN it is encoded in implicit little endian (PS3.5, section 6.2.2, note 1 ff.)
        implicit = level.implicit or kind == b"UN"
        self._enter(level, start, UNDEFINED, sequence=True, implicit=implicit)
        return start

    def _fragments(self, at: int, end: int) -> int:
        """Return where a sequence of fragments ends, its delimiter included (PS3.5, section A.4)."""
        while at + 8 <= end:
            group, element = self._tag(self._content, at)
            (length,) = self._u32(self._content, at + 4)
            tag = group << 16 | element
            at += 8
            self._left -= 1
            if tag == _SEQUENCE_END and length == 0:
                return at
            if tag != _ITEM or length == UNDEFINED or self._left < 0:
                break
            at += length
        raise Unreadable("fragments of pixel data that do not end")

    def _enter(self, level: _Level, start: int, length: int, *, sequence: bool, implicit: bool) -> None:
        undefined = length == UNDEFINED
        end = level.end if undefined else start + length
        if end > level.end:
            raise Unreadable("a sequence or an item is longer than what holds it")
        if len(self._levels) > 2 * DEPTH:  # a level of sequence and one of item
            raise Unreadable("sequences nested too deeply")
        self._levels.append(_Level(end, undefined=undefined, sequence=sequence, implicit=implicit))


def text(walk: Walk, tag: int) -> str:
    """Return a text value in its character set, without padding; empty where it is missing."""
    raw = (walk.value(tag) or b"").strip(b"\0 ")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    named = [one.strip() for one in (walk.value(_CHARACTER_SET) or b"").decode("latin-1").rstrip("\0 ").split("\\")]
    if not all(one in python_encoding for one in named):
        return raw.decode("latin-1")
    try:
        return decode_bytes(raw, convert_encodings(named), set())
    except (LookupError, UnicodeError, ValueError):
        return raw.decode("latin-1")
