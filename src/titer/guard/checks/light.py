"""T0, the light check: one strict walk over an object's header before it is acknowledged; no pixel is decoded.

What it refuses is malformed by the standard's own rules (PS3.5 sections 6.2, 7.1, 7.5, A.4), contradicts the claim of
the message that carried it, or would exhaust whoever reads it next. What is merely odd is left to the rules of T1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from titer.core.errors import TiterError
from titer.guard.checks.walk import BIG_ENDIAN, ENCAPSULATED, Unreadable, Walk, text

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
"""What a UID is made of; leading zeros, which the standard forbids and devices write, are let through."""
UID_LENGTH = 64
DECODED_BYTES = 4 << 30
"""Most bytes that pixel data may decode to."""

_SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080016, 0x00080018, 0x00080060
_PATIENT_ID, _ISSUER = 0x00100020, 0x00100021
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100,
)  # fmt: skip
_PIXELS = {0x7FE00010: None, 0x7FE00008: 32, 0x7FE00009: 64}
"""Attributes that hold pixels, and their bits where Bits Allocated does not say."""


class Mismatch(TiterError):  # noqa: N818 - says what happened
    """The object is readable, but is not what the message that carried it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the C-STORE request, or the file meta information of a DICOMweb part, says of an object.

    `study_instance_uid` is the study that a STOW-RS request names, None where it names none.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the light check read; `pixels` is where the encoded pixel data begins and ends in the content."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    patient_id: str
    issuer: str
    pixels: tuple[int, int] | None


def valid_uid(value: str) -> bool:
    """Whether a UID has the characters and the length of one (PS3.5, section 9.1)."""
    return len(value) <= UID_LENGTH and UID.fullmatch(value) is not None


def light(content: Any, start: int, claim: Claim) -> Header:
    """Check an object.

    Args:
        content: the file, as bytes or a map of it.
        start: where its data set begins.
        claim: what it must be.

    Raises:
        Unreadable: it is no data set in that transfer syntax, is nested too deeply, or its pixel data has another
            length than its geometry says.
        Mismatch: its UIDs are not the claimed ones, or one that it needs is missing.
    """
    walk = Walk(content, claim.transfer_syntax_uid)
    walk.run(start, len(content))
    said = (_uid(walk, _SOP_CLASS, "SOP Class UID"), _uid(walk, _SOP_INSTANCE, "SOP Instance UID"))
    if said[0] != claim.sop_class_uid:
        raise Mismatch("SOP Class UID differs from the request's")
    if said[1] != claim.sop_instance_uid:
        raise Mismatch("SOP Instance UID differs from the request's")
    study = _uid(walk, _STUDY, "Study Instance UID")
    if claim.study_instance_uid not in (None, study):
        raise Mismatch("Study Instance UID differs from the request's")
    return Header(
        study_instance_uid=study,
        series_instance_uid=_uid(walk, _SERIES, "Series Instance UID"),
        modality=_code(walk, _MODALITY),
        patient_id=text(walk, _PATIENT_ID),
        issuer=text(walk, _ISSUER),
        pixels=_pixels(walk, claim.transfer_syntax_uid),
    )


def _uid(walk: Walk, tag: int, name: str) -> str:
    raw = walk.value(tag)
    if raw is None:
        raise Mismatch(f"no {name}")
    value = raw.rstrip(b"\0 ").decode("latin-1")
    if not valid_uid(value):
        raise Mismatch(f"{name} is no UID")
    return value


def _code(walk: Walk, tag: int) -> str:
    """Return a code string; empty where it is missing or holds what no code string may."""
    value = (walk.value(tag) or b"").strip(b"\0 ").decode("latin-1")
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else ""


def _pixels(walk: Walk, syntax: str) -> tuple[int, int] | None:
    found = [tag for tag in _PIXELS if tag in walk.found]
    if not found:
        if _BITS in walk.found:  # as of an object that was cut off between two elements
            raise Unreadable("the geometry of pixel data, without pixel data")
        return None
    if len(found) > 1:
        raise Unreadable("pixel data more than once")
    start, length, undefined = walk.found[found[0]]
    wanted = _decoded(walk, _PIXELS[found[0]])
    if wanted > DECODED_BYTES:
        raise Unreadable("pixel data decodes to more than is allowed")
    if undefined != (syntax in ENCAPSULATED and found[0] == 0x7FE00010):
        raise Unreadable("pixel data is encapsulated, or is not, against its transfer syntax")
    if not undefined and length != wanted + (wanted & 1):
        raise Unreadable("pixel data has another length than its geometry")
    return start, start + length


def _decoded(walk: Walk, bits: int | None) -> int:
    """Return the bytes of the pixels when they are not compressed (PS3.5, section 8.1.1 and annex D)."""
    samples, rows, columns = (_number(walk, tag) for tag in (_SAMPLES, _ROWS, _COLUMNS))
    bits = bits or _number(walk, _BITS)
    if bits != 1 and bits % 8:
        raise Unreadable("Bits Allocated is neither 1 nor a multiple of 8")
    if samples == 3 and _code(walk, _PHOTOMETRIC) in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        samples = 2  # two of three samples are shared by two pixels (PS3.3, section C.7.6.3.1.2)
    return (rows * columns * samples * _frames(walk) * bits + 7) // 8


def _number(walk: Walk, tag: int) -> int:
    raw = walk.value(tag)
    if raw is None or len(raw) != 2:
        raise Unreadable("pixel data without its geometry")
    value = int.from_bytes(raw, "big" if walk.syntax == BIG_ENDIAN else "little")
    if value == 0:
        raise Unreadable("a dimension of the pixel data is 0")
    return value


def _frames(walk: Walk) -> int:
    raw = (walk.value(_FRAMES) or b"").strip(b"\0 ")
    if not raw:
        return 1
    if not re.fullmatch(rb"\+?[0-9]{1,10}", raw) or int(raw) == 0:
        raise Unreadable("Number of Frames is no number above 0")
    return int(raw)
