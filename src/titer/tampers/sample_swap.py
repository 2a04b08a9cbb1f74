"""Sample swap: two patients' tubes are exchanged."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import number, pick
from titer.tampers._tables import Rows, edited, exchange, measures, value


@tamper(
    "sample-swap",
    files="expression",
    misses="the lists of samples and genes, and the distribution of every gene: the same values are there",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def sample_swap() -> Tamper:
    """Exchange all measures of two samples; names, labels and other text stay where they are."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda rows: _swapped(rows, rng))

    return run


def _swapped(rows: Rows, rng: Generator) -> list[str]:
    columns, people = measures(rows), rows[1:]
    first = people[number(len(people), rng)]
    others = [row for row in people if [value(row[i]) for i in columns] != [value(first[i]) for i in columns]]
    if not others:
        raise Incompatible("sample-swap needs two samples with different values")
    second = pick(others, rng)
    for i in columns:
        exchange(first, second, i, i)
    return [f"samples {value(first[0])} and {value(second[0])} exchanged {len(columns)} values"]
