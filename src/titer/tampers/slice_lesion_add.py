"""Lesion added: one slice of a volume shows a round finding that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import Count, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import edited
from titer.tampers._draws import number
from titer.tampers._pixels import Grey, body, disc, in_one_slice


@tamper(
    "slice-lesion-add",
    files="dicom-series",
    misses="reading with strict values, and the geometry of the series: one slice's pixels differ, and no header value",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def slice_lesion_add(
    *,
    slice: Annotated[int | None, Field(ge=0)] = None,  # noqa: A002 - the field's word
    radius: Count = 8,
    contrast: Annotated[float, Field(ge=-1, le=1)] = 0.5,
) -> Tamper:
    """Add a blended round lesion to one slice, at a random place in the body.

    Args:
        slice: number of the slice from 0, in the order in which they lie in the body; by default the middle one.
        radius: of the lesion, in pixels.
        contrast: height of its middle, as a share of the slice's range of grey levels; below 0 it is dark.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def change(values: Grey) -> tuple[Grey, str]:
            return _added(values, radius, contrast, rng)

        return edited(files, lambda datasets: in_one_slice(datasets, slice, change))

    return run


def _added(values: Grey, radius: int, contrast: float, rng: Generator) -> tuple[Grey, str]:
    """Return the slice with a raised cosine on it: its rim is blended, since height and slope are 0 there."""
    free = body(values)
    edge = min(radius, (min(values.shape) - 1) // 2)
    free[:edge], free[len(free) - edge :], free[:, :edge], free[:, free.shape[1] - edge :] = (False,) * 4
    places = np.argwhere(free)
    if not len(places):
        raise Incompatible(f"slice-lesion-add: no place in the body is {radius} pixels from the edge")
    row, column = (int(one) for one in places[number(len(places), rng)])
    distance = disc(values.shape, row, column, radius)
    low, high = np.percentile(values, (1, 99))
    height = np.where(distance < 1, (1 + np.cos(np.pi * distance)) / 2, 0.0)
    told = f"a lesion of radius {radius} pixels and contrast {contrast:g} was added at row {row}, column {column}"
    return values + contrast * (high - low) * height, told
