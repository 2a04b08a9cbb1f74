"""Counts scaled: samples look as if they had been sequenced deeper."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import Count, Positive, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import some
from titer.tampers._tables import Rows, edited, measures, value


@tamper(
    "counts-scale",
    files="expression",
    misses="types, missing values, signs and the ranks within a sample: every value is multiplied by the same number",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def counts_scale(*, factor: Positive = 10.0, samples: Count = 1) -> Tamper:
    """Multiply all measures of some samples; whole numbers stay whole.

    Args:
        factor: what the values are multiplied by.
        samples: how many samples, chosen at random; all where there are fewer.
    """

    def edit(rows: Rows, rng: Generator) -> list[str]:
        columns, told = measures(rows), []
        for row in some(rows[1:], samples, rng):
            before = [row[i] for i in columns]
            for i in columns:
                row[i] = _scaled(row[i], factor)
            if [row[i] for i in columns] != before:
                told.append(f"{len(columns)} values of sample {value(row[0])} were multiplied by {factor:g}")
        if not told:
            raise Incompatible(f"counts-scale.factor = {factor:g} changes no value of the samples chosen")
        return told

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda rows: edit(rows, rng))

    return run


def _scaled(written: str, factor: float) -> str:
    """Return the number times the factor, with as many digits after the point as it has, quoted as it is."""
    text = value(written)
    if "e" in text.lower():
        return written.replace(text, repr(float(text) * factor), 1)
    return written.replace(text, f"{float(text) * factor:.{len(text.partition('.')[2])}f}", 1)
