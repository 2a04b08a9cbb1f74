"""Genotype out of range: a sample carries an allele that its record does not list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import Count, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import number, some
from titer.tampers._vcf import ALT, FORMAT, SAMPLES, Rows, edited, place

_CALLED = re.compile(r"\d+")


@tamper(
    "vcf-genotype-range",
    files="vcf",
    misses="gzip, columns and the form of each genotype: 0/2 looks like one, and only the count of ALT refutes it",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def vcf_genotype_range(*, genotypes: Count = 1) -> Tamper:
    """Raise one allele number of genotypes beyond the record's alleles.

    Args:
        genotypes: how many genotypes of each file, one a record.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def edit(header: Sequence[str], rows: Rows) -> list[str]:
            names = header[-1].split("\t")
            return [_raised(row, names, rng) for row in some(_with_genotypes(rows), genotypes, rng)]

        return edited(files, edit)

    return run


def _with_genotypes(rows: Rows) -> Rows:
    found = [row for row in rows if len(row) > SAMPLES and row[FORMAT].split(":")[0] == "GT" and _called(row)]
    if not found:
        raise Incompatible("vcf-genotype-range: no record has a genotype (GT)")
    return found


def _called(row: Sequence[str]) -> list[int]:
    return [i for i in range(SAMPLES, len(row)) if _CALLED.search(row[i].split(":")[0])]


def _raised(row: list[str], names: Sequence[str], rng: Generator) -> str:
    columns = _called(row)
    column = columns[number(len(columns), rng)]
    before, *rest = row[column].split(":")
    beyond = 1 + (0 if row[ALT] == "." else row[ALT].count(",") + 1)
    after = _CALLED.sub(str(beyond), before[::-1], count=1)[::-1] if beyond < 10 else _CALLED.sub(str(beyond), before)
    row[column] = ":".join([after, *rest])
    who = names[column] if column < len(names) else f"column {column + 1}"
    return f"GT {before} of sample {who} became {after} at {place(row)}"
