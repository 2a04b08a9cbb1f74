"""Unsorted: two records of a contig change places in the file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import pick, some
from titer.tampers._vcf import CHROM, POS, Rows, edited, place


@tamper(
    "vcf-unsorted",
    files="vcf",
    misses="gzip, columns and every record by itself: each is as it was, and what looks up by position misses two",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def vcf_unsorted() -> Tamper:
    """Exchange two records of one contig: an index made of the file, or a merge, loses variants."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def edit(_header: Sequence[str], rows: Rows) -> list[str]:
            first, second = _pair(rows, rng)
            rows[first], rows[second] = rows[second], rows[first]
            return [f"the records of {place(rows[second])} and {place(rows[first])} changed places"]

        return edited(files, edit)

    return run


def _pair(rows: Rows, rng: Generator) -> tuple[int, int]:
    contigs: dict[str, dict[str, int]] = defaultdict(dict)
    for i, row in enumerate(rows):
        contigs[row[CHROM]].setdefault(row[POS], i)
    several = [list(places.values()) for places in contigs.values() if len(places) > 1]
    if not several:
        raise Incompatible("vcf-unsorted: no contig has records at two positions")
    first, second = some(pick(several, rng), 2, rng)
    return first, second
