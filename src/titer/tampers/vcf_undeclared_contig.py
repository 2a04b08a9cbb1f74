"""Undeclared contig: records lie on a contig that the header does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import pick
from titer.tampers._vcf import CHROM, Rows, edited


@tamper(
    "vcf-undeclared-contig",
    files="vcf",
    misses="gzip, columns and every record by itself: a name is any text, and few readers look it up in the header",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def vcf_undeclared_contig() -> Tamper:
    """Rename one contig in the records, `1` to `chr1` or the reverse: what asks for the old name finds no variant."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda header, rows: _renamed(header, rows, rng))

    return run


def _renamed(header: Sequence[str], rows: Rows, rng: Generator) -> list[str]:
    before = pick(list(dict.fromkeys(row[CHROM] for row in rows)), rng)
    after = before.removeprefix("chr") if before.startswith("chr") and before != "chr" else f"chr{before}"
    taken = {row[CHROM] for row in rows}
    if after in taken or any(f"ID={after}," in line or f"ID={after}>" in line for line in header):
        raise Incompatible(f"vcf-undeclared-contig: the file knows the contig {after!r} too")
    count = 0
    for row in rows:
        if row[CHROM] == before:
            row[CHROM], count = after, count + 1
    return [f"contig {before} became {after} in {count} records; the header was left as it is"]
