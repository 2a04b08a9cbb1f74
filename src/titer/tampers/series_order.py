"""Series order: which series of a study came first is told the wrong way round."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import Datasets, by, edited

_ORDER = ("SeriesNumber", "SeriesDate", "SeriesTime")


@tamper(
    "series-order",
    files="dicom-series",
    misses="unique series, each with one number: two series exchange theirs, so that contrast and plain change places",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def series_order() -> Tamper:
    """Exchange number, date and time of the first and the last series."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        return edited(files, _exchanged)

    return run


def _exchanged(datasets: Datasets) -> dict[str, str]:
    series = by(datasets, "SeriesInstanceUID")
    if len(series) < 2:
        raise Incompatible("series-order needs files of two or more series")
    names = sorted(series.values(), key=lambda files: int(datasets[files[0]].get("SeriesNumber") or 0))
    first, last = names[0], names[-1]
    values = [{key: datasets[files[0]].get(key) for key in _ORDER} for files in (first, last)]
    both = [key for key in _ORDER if values[0][key] is not None and values[1][key] is not None]
    changed = [key for key in both if values[0][key] != values[1][key]]
    if not changed:
        raise Incompatible(f"series-order: the first and the last series do not differ in {', '.join(_ORDER)}")
    changes = {}
    for files, other in ((first, values[1]), (last, values[0])):
        for name in files:
            told = [f"{key} {datasets[name].get(key)} became {other[key]}" for key in changed]
            for key in changed:
                setattr(datasets[name], key, other[key])
            changes[name] = "; ".join(told)
    return changes
