"""Instance order: the slices of a series are numbered in another order than they lie in the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import Datasets, by, edited


@tamper(
    "instance-order",
    files="dicom-series",
    misses="a complete series without a gap: the same numbers are there, each once",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def instance_order(*, order: Literal["reverse", "shuffle"] = "reverse") -> Tamper:
    """Give the slices of each series each other's InstanceNumber: head first becomes feet first.

    Args:
        order: `reverse`, or `shuffle` at random.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda datasets: _renumbered(datasets, order, rng))

    return run


def _renumbered(datasets: Datasets, order: str, rng: Generator) -> dict[str, str]:
    changes: dict[str, str] = {}
    for names in by(datasets, "SeriesInstanceUID").values():
        known = [name for name in names if datasets[name].get("InstanceNumber") is not None]
        known.sort(key=lambda name: int(datasets[name].InstanceNumber))
        numbers = [int(datasets[name].InstanceNumber) for name in known]
        places = torch.randperm(len(known), generator=rng).tolist() if order == "shuffle" else range(len(known))[::-1]
        for name, old, place in zip(known, numbers, places, strict=True):
            if numbers[place] != old:
                datasets[name].InstanceNumber = numbers[place]
                changes[name] = f"InstanceNumber {old} became {numbers[place]}"
    if not changes:
        raise Incompatible("instance-order needs two or more files of one series with different InstanceNumbers")
    return changes
