"""Pixel patch: a bright square is burnt into the image, like a marker or a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import Count, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import Datasets, edited
from titer.tampers._draws import number
from titer.tampers._pixels import grey_levels, put_grey_levels


@tamper(
    "pixel-patch",
    files="dicom",
    misses="reading with strict values, and the length of the pixels: markers and burnt-in text are common",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def pixel_patch(*, size: Count = 16, level: Annotated[float, Field(ge=0, le=1)] = 1.0) -> Tamper:
    """Set a square of pixels to one grey level, at one random place in all files.

    Args:
        size: side of the square, in pixels.
        level: its grey level, as a share of the way from the image's lowest to its highest.
    """

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda datasets: _patched(datasets, size, level, rng))

    return run


def _patched(datasets: Datasets, size: int, level: float, rng: Generator) -> dict[str, str]:
    images = {name: grey_levels(name, one) for name, one in datasets.items()}
    height = min((one.shape[0] for one in images.values()), default=0)
    width = min((one.shape[1] for one in images.values()), default=0)
    if size > min(height, width):
        raise Incompatible(f"pixel-patch.size = {size}: the smallest image is {height} x {width}")
    row, column = number(height - size + 1, rng), number(width - size + 1, rng)
    changes = {}
    for name, values in images.items():
        values[row : row + size, column : column + size] = values.min() + level * (values.max() - values.min())
        count = put_grey_levels(name, datasets[name], values)
        if count:
            changes[name] = f"a square of {size} pixels at row {row}, column {column}; {count} pixels changed"
    if not changes:
        raise Incompatible("pixel-patch: the square has that grey level already")
    return changes
