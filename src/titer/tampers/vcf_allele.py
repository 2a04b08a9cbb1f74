"""Allele: the alternate allele of a site becomes another base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import Count, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import pick, some
from titer.tampers._vcf import ALT, REF, Rows, edited, place

_BASES = "ACGT"


@tamper(
    "vcf-allele",
    files="vcf",
    misses="a strict reader, and REF against the reference genome: an ALT may be any base that REF is not",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def vcf_allele(*, sites: Count = 1) -> Tamper:
    """Replace the alternate allele of sites of one base: the same genotypes now say another variant.

    Args:
        sites: how many sites of each file; all where there are fewer.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def edit(_header: Sequence[str], rows: Rows) -> list[str]:
            return [_replaced(row, rng) for row in some(_single(rows), sites, rng)]

        return edited(files, edit)

    return run


def _single(rows: Rows) -> Rows:
    found = [row for row in rows if row[REF].upper() in tuple(_BASES) and row[ALT].upper() in tuple(_BASES)]
    if not found:
        raise Incompatible("vcf-allele: no site has one base as REF and one as ALT")
    return found


def _replaced(row: list[str], rng: Generator) -> str:
    before = row[ALT]
    row[ALT] = pick([base for base in _BASES if base not in (row[REF].upper(), before.upper())], rng)
    return f"ALT {before} became {row[ALT]} at {place(row)}"
