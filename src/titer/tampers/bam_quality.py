"""BAM qualities: aligned reads claim to be better, or worse, than the sequencer saw them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._bgzf import bgzf, blocked, unpacked
from titer.tampers._qualities import Quality, ReadShare, drawn, set_qualities

_CORE = struct.Struct("<iiBBHHHiiii")
"""A record's fixed fields, after its length (SAM specification, section 4.2)."""


@tamper(
    "bam-quality",
    files="bam",
    misses="the checksum of every BGZF block and the block that ends the file, as `samtools quickcheck` looks at them",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def bam_quality(*, quality: Quality = 40, share: ReadShare = 1.0) -> Tamper:
    """Set the quality of every base of some aligned reads; blocks are compressed anew, with their own checksums.

    Args:
        quality: Phred quality, 0 to 93.
        share: share of the reads, chosen at random.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def edit(name: str, content: bytes) -> tuple[bytes, int, int]:
            if not blocked(content):
                raise Incompatible(f"{name} is no BAM file: it is not in BGZF")
            plain = bytearray(unpacked(name, content))
            places = list(_qualities(name, plain))
            chosen = drawn(len(places), share, rng)
            count = sum(_set(plain, place, quality) for place, taken in zip(places, chosen, strict=True) if taken)
            return bgzf(bytes(plain)), count, len(places)

        return set_qualities(files, "BAM", quality, edit)

    return run


def _set(plain: bytearray, place: slice, quality: int) -> bool:
    new = bytes([quality]) * (place.stop - place.start)
    differs: bool = bytes(plain[place]) != new
    plain[place] = new
    return differs


def _qualities(name: str, plain: bytearray) -> Iterator[slice]:
    """Yield where the qualities of each read lie in a decompressed BAM file."""
    try:
        at = _after_header(name, plain)
        while at < len(plain):
            (size,) = struct.unpack_from("<i", plain, at)
            fields = _CORE.unpack_from(plain, at + 4)
            name_length, operations, length = fields[2], fields[5], fields[7]
            start = at + 4 + _CORE.size + name_length + 4 * operations + (length + 1) // 2
            end = at + 4 + size
            if size < _CORE.size or length < 0 or start + length > end or end > len(plain):
                raise Incompatible(f"{name}: the record at byte {at} is longer than it says, or cut off")
            yield slice(start, start + length)
            at = end
    except struct.error:
        raise Incompatible(f"{name} is cut off within a record") from None


def _after_header(name: str, plain: bytearray) -> int:
    """Return where the first record begins: after the text and the list of references."""
    if plain[:4] != b"BAM\x01":
        raise Incompatible(f"{name} is no BAM file: it does not begin with 'BAM'")
    (text,) = struct.unpack_from("<i", plain, 4)
    at: int = 8 + text
    (references,) = struct.unpack_from("<i", plain, at) if text >= 0 else (-1,)
    if references < 0:
        raise Incompatible(f"{name}: a length in its header is below 0")
    at += 4
    for _ in range(references):
        (length,) = struct.unpack_from("<i", plain, at)
        if length < 0:
            raise Incompatible(f"{name}: a length in its header is below 0")
        at += 8 + length
    return at
