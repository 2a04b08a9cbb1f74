"""Lesion removed: one slice of a volume shows smooth tissue where a finding is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Generator

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import edited
from titer.tampers._pixels import Grey, body, disc, in_one_slice


@tamper(
    "slice-lesion-remove",
    files="dicom-series",
    misses="reading with strict values, and the geometry of the series: one slice's pixels differ, and no header value",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def slice_lesion_remove(
    *,
    slice: Annotated[int | None, Field(ge=0)] = None,  # noqa: A002 - the field's word
    row: Annotated[int | None, Field(ge=0)] = None,
    column: Annotated[int | None, Field(ge=0)] = None,
    radius: Annotated[int, Field(ge=1, le=64)] = 8,
) -> Tamper:
    """Replace a disc of one slice by what its rim leads to (harmonic inpainting), with the rim's grain.

    Args:
        slice: number of the slice from 0, in the order in which they lie in the body; by default the middle one.
        row: row of the disc's middle; by default the brightest place of that size.
        column: its column; given with `row`.
        radius: of the disc, in pixels.
    """
    if (row is None) != (column is None):
        raise SpecError("slice-lesion-remove.row and slice-lesion-remove.column go together: give both, or neither")

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        def change(values: Grey) -> tuple[Grey, str]:
            at = _brightest(values, radius) if row is None or column is None else (row, column)
            return _removed(values, *at, radius, rng)

        return edited(files, lambda datasets: in_one_slice(datasets, slice, change))

    return run


def _brightest(values: Grey, radius: int) -> tuple[int, int]:
    from scipy.ndimage import gaussian_filter

    smooth = np.where(body(values), gaussian_filter(values, radius / 2), -np.inf)
    edge = min(radius + 1, (min(values.shape) - 1) // 2)
    inner = smooth[edge : len(smooth) - edge, edge : smooth.shape[1] - edge]
    if not inner.size or not np.isfinite(inner).any():
        raise Incompatible(f"slice-lesion-remove: no place in the body is {radius} pixels from the edge")
    row, column = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(row) + edge, int(column) + edge


def _removed(values: Grey, row: int, column: int, radius: int, rng: Generator) -> tuple[Grey, str]:
    """Return the slice with its disc filled: Laplace's equation from the rim inwards, by Jacobi's iteration."""
    if row >= values.shape[0] or column >= values.shape[1]:
        raise Incompatible(
            f"row = {row}, column = {column} lies outside the image of {values.shape[0]} x {values.shape[1]}"
        )
    top, left = max(row - radius - 2, 0), max(column - radius - 2, 0)
    window = np.s_[top : row + radius + 3, left : column + radius + 3]
    part = values[window]
    distance = disc(values.shape, row, column, radius)[window]
    inside, rim = distance < 1, (distance >= 1) & (distance < 1 + 2 / radius)
    filled = np.where(inside, part[rim].mean() if rim.any() else part.mean(), part)
    for _ in range(2 * radius * radius):
        padded = np.pad(filled, 1, mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        filled = np.where(inside, mean, part)
    out = values.copy()
    out[window] = np.where(inside, filled + _grain(part, rim, rng), part)
    return out, f"a disc of radius {radius} pixels at row {row}, column {column} was filled from its rim"


def _grain(part: Grey, rim: np.ndarray, rng: Generator) -> Grey:
    """Return noise as rough as the rim is from pixel to pixel, so that the disc is not smoother than what is around."""
    import torch

    rough = np.diff(part, axis=1)[rim[:, 1:]]
    # The median of absolute differences over 0.6745 is the standard deviation of two pixels' noise, less any edge.
    spread = float(np.median(np.abs(rough))) / 0.6745 / np.sqrt(2) if rough.size else 0.0
    return spread * torch.randn(part.shape, generator=rng, dtype=torch.float64).numpy()
