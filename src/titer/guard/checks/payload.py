"""T1: what a file carries besides an image: programs in its preamble or its elements, large opaque private values."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator

from titer.guard.checks.loaded import PREAMBLE, Loaded
from titer.guard.checks.past import Past
from titer.guard.checks.rule import EXECUTION, Hit, Rule
from titer.guard.records import Outcome

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = {
    b"\x7fELF": "ELF",
    b"\xfe\xed\xfa\xce": "Mach-O",
    b"\xfe\xed\xfa\xcf": "Mach-O",
    b"\xcf\xfa\xed\xfe": "Mach-O",
    b"\xce\xfa\xed\xfe": "Mach-O",
    b"\xca\xfe\xba\xbe": "Mach-O or Java",
    b"#!/": "script",
    b"<?php": "script",
    b"PK\x03\x04": "archive",
    b"Rar!": "archive",
    b"7z\xbc\xaf": "archive",
    b"dex\n": "Android",
    b"\0asm": "WebAssembly",
}
_LARGE = 1 << 20
_OPAQUE = 32 << 10
_RANDOM = 7.5
_SAMPLE = 1 << 16
_SECTOR = 4096
_LEAST = 8
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_BINARY = {"OB", "OW", "UN", "OD", "OF", "OL", "OV", "UT", "LT", "ST", "UC", None}
_DEEPEST = 64


def program(content: bytes) -> str | None:
    """Return what kind of program or archive begins here, None where none does."""
    if content[:2] == b"MZ":
        return "PE"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)


def entropy(content: bytes) -> float:
    """Return Shannon's entropy in bits a byte of the first 64 KiB."""
    part = content[:_SAMPLE]
    counts = Counter(part).values()
    return -sum(n / len(part) * math.log2(n / len(part)) for n in counts)


def _preamble(one: Loaded, _past: Past) -> Iterator[Hit]:
    """128 bytes that are 0, or begin a TIFF file (PS3.10, 7.1): CVE-2019-11687 is all the rest.

    Scanners leave a stray byte or two there; less than eight are no program.
    """
    kind = program(one.preamble)
    if kind is not None:
        yield Hit(reason=f"the preamble begins a program ({kind})", evidence={"kind": kind}, outcome=Outcome.BLOCK)
    elif one.preamble and PREAMBLE - one.preamble.count(0) >= _LEAST and one.preamble[:4] not in _TIFF:
        digest = hashlib.sha256(one.preamble).hexdigest()
        yield Hit(reason="the preamble is neither zero nor the header of a TIFF file",
                  evidence={"sha256": digest, "bytes": PREAMBLE - one.preamble.count(0)}, habit=digest)  # fmt: skip


def _programs(one: Loaded, _past: Past) -> Iterator[Hit]:
    """No element begins a program; a text or document element may hold an archive, a private one may not."""
    for place, tag, value in _values(one.dataset):
        kind = program(value)
        private = bool((tag >> 16) & 1)
        real = kind is not None and (kind != "PE" or _is_pe(value)) and (private or kind != "archive")
        if real:
            yield Hit(reason=f"element {place} begins a program ({kind})", outcome=Outcome.BLOCK,
                      evidence={"element": place, "kind": kind, "bytes": len(value)})  # fmt: skip


def _is_pe(value: bytes) -> bool:
    """Tell a program from values that begin with the letters MZ: its header is longer and binary."""
    return len(value) >= 64 and b"\0" in value[:64]


def _opaque(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Large private values: more than a MiB, or more than 32 KiB that look compressed or encrypted."""
    for place, tag, value in _values(one.dataset):
        if not (tag >> 16) & 1 or len(value) <= _OPAQUE:
            continue
        bits = entropy(value)
        if len(value) > _LARGE or bits > _RANDOM:
            yield Hit(reason=f"private element {place} is large and opaque", habit=place,
                      evidence={"element": place, "bytes": len(value), "entropy": round(bits, 2)})  # fmt: skip


def _padding(one: Loaded, _past: Past) -> Iterator[Hit]:
    """DataSetTrailingPadding has no meaning (PS3.10, 7.2): a sector's worth of it is no place for content."""
    value = getattr(one.dataset.get_item(0xFFFCFFFC), "value", None) if 0xFFFCFFFC in one.dataset else None
    if isinstance(value, bytes) and len(value) > _SECTOR and any(value):
        yield Hit(reason="DataSetTrailingPadding is long and not zero", evidence={"bytes": len(value)}, habit="padding")


def _values(dataset: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, int, bytes]]:
    """Yield place, tag and bytes of every binary or long text value, those in sequences too, pixels left out."""
    if depth > _DEEPEST:
        raise ValueError("sequences are nested too deep")
    for tag in dataset.keys():  # type: ignore[attr-defined] # noqa: SIM118 - a Dataset's iteration converts values
        if int(tag) in _PIXELS:
            continue
        raw = dataset.get_item(tag)  # type: ignore[attr-defined]
        here = f"{place}{tag}"
        if getattr(raw, "VR", None) == "SQ":
            for number, item in enumerate(dataset[tag].value or ()):  # type: ignore[index]
                yield from _values(item, f"{here}[{number}].", depth + 1)
        elif isinstance(raw.value, bytes) and getattr(raw, "VR", None) in _BINARY:
            yield here, int(tag), raw.value


RULES: tuple[Rule[Loaded], ...] = (
    Rule(name="preamble", catches="programs before the data set (preamble-executable)", look=_preamble,
         threats=EXECUTION),
    Rule(name="programs", catches="programs within elements", look=_programs, threats=EXECUTION),
    Rule(name="private-values", catches="large opaque private values", look=_opaque, threats=EXECUTION),
    Rule(name="trailing-padding", catches="content after the image", look=_padding, threats=EXECUTION),
)  # fmt: skip
