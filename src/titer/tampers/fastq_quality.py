"""FASTQ qualities: reads claim to be better, or worse, than the sequencer saw them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._bgzf import packed, unpacked
from titer.tampers._qualities import Quality, ReadShare, drawn, set_qualities

_OFFSET = 33


@tamper(
    "fastq-quality",
    files="fastq",
    misses="gzip, the four lines of each read, and as many qualities as bases: every quality is an allowed one",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def fastq_quality(*, quality: Quality = 40, share: ReadShare = 1.0) -> Tamper:
    """Set the quality of every base of some reads: errors pass filters, or variants vanish.

    Args:
        quality: Phred quality, 0 to 93.
        share: share of the reads, chosen at random.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def edit(name: str, content: bytes) -> tuple[bytes, int, int]:
            plain, count, reads = _edited(name, unpacked(name, content), quality, share, rng)
            return packed(plain, content), count, reads

        return set_qualities(files, "FASTQ", quality, edit)

    return run


def _edited(name: str, plain: bytes, quality: int, share: float, rng: Generator) -> tuple[bytes, int, int]:
    """Return the file, how many reads changed, and how many there are."""
    lines = plain.split(b"\n")
    reads = len(lines) // 4
    rest = lines[4 * reads :]
    if not reads or any(line.strip() for line in rest):
        raise Incompatible(f"{name} is no FASTQ file: {len(lines)} lines are no whole number of reads of four lines")
    chosen = drawn(reads, share, rng)
    count = 0
    for read in range(reads):
        head, bases, plus, marks = (line.rstrip(b"\r") for line in lines[4 * read : 4 * read + 4])
        if not head.startswith(b"@") or not plus.startswith(b"+") or len(bases) != len(marks):
            raise Incompatible(f"{name} is no FASTQ file: lines {4 * read + 1} to {4 * read + 4} are no read")
        new = bytes([quality + _OFFSET]) * len(marks)
        if bool(chosen[read]) and new != marks:
            lines[4 * read + 3] = new + lines[4 * read + 3][len(marks) :]
            count += 1
    return b"\n".join(lines), count, reads
