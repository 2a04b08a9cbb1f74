"""Gene columns swapped: two genes change names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import Count, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import some
from titer.tampers._tables import Rows, edited, exchange, measures, value


@tamper(
    "gene-columns-swap",
    files="expression",
    misses="the list of genes, the shape and the sum of each sample: the same names and the same values are there",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def gene_columns_swap(*, pairs: Count = 1) -> Tamper:
    """Exchange the names of two columns of numbers: a model reads one gene as the other.

    Args:
        pairs: how many pairs of columns; no column takes part twice.
    """

    def edit(rows: Rows, rng: Generator) -> list[str]:
        columns = measures(rows)
        if 2 * pairs > len(columns):
            raise Incompatible(f"gene-columns-swap.pairs = {pairs}: the table has {len(columns)} columns of numbers")
        chosen, header, told = some(columns, 2 * pairs, rng), rows[0], []
        for first, second in zip(chosen[:pairs], chosen[pairs:], strict=True):
            told.append(f"the columns {value(header[first])} and {value(header[second])} exchanged names")
            exchange(header, header, first, second)
        return told

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda rows: edit(rows, rng))

    return run
