"""A series as the rules of T2 see it: its headers, and its order in the body; pixels are read again when needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from titer.guard.checks.loaded import Loaded, load, quiet
from titer.guard.checks.past import Past

_VOLUMES = ("CT", "MR", "PT")
_AXES = ("LR", "PA", "HF")
_ROUND = 2
SMALLEST, MOST = 64, 3000
"""Pixels of a side, and slices, with which neighbours are compared."""


@dataclass(frozen=True, slots=True)
class Slice:
    """An object with a place: `along` the stack's normal and `across` it (row, column), in millimetres."""

    one: Loaded
    along: float
    across: tuple[float, float]
    number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Objects of one series without their pixels, and its stack of slices in the order in which they lie.

    `stack` is of the orientation that most objects have, empty where the series is no volume.
    """

    objects: tuple[Loaded, ...]
    stack: tuple[Slice, ...]
    normal: tuple[float, float, float] | None

    @property
    def first(self) -> Loaded:
        """One of its objects, to ask for what all share."""
        return self.objects[0]

    def device(self, past: Past) -> str:
        """Return the keyed digest of what made it."""
        return self.first.device(past)


def series_of(paths: Iterable[Path]) -> Series:
    """Read the headers of a series.

    Raises:
        Unreadable: a file is no DICOM object.
    """
    objects = tuple(_header(path) for path in paths)
    with quiet():
        stack, normal = _stack(objects)
    return Series(objects=objects, stack=stack, normal=normal)


def main_direction(normal: Sequence[float]) -> str:
    """Return the axis of the body along which a stack lies: LR, PA or HF, with the sign of its normal."""
    main = int(np.argmax(np.abs(normal)))
    return f"{_AXES[main]}{'+' if normal[main] > 0 else '-'}"


def one_stack(series: Series) -> bool:
    """Whether every place of the stack has one slice, of one size of 64 pixels or more, so that neighbours compare."""
    sides = {(one.one.dataset.get("Rows"), one.one.dataset.get("Columns")) for one in series.stack}
    large = all(isinstance(side, int) and side >= SMALLEST for pair in sides for side in pair)
    places = {round(one.along, 2) for one in series.stack}
    return len(sides) == 1 and large and len(places) == len(series.stack) <= MOST


def _header(path: Path) -> Loaded:
    one = load(path)
    for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if key in one.dataset:
            del one.dataset[key]
    return one


def _stack(objects: Sequence[Loaded]) -> tuple[tuple[Slice, ...], tuple[float, float, float] | None]:
    placed = [(one, axes) for one in objects if (axes := _axes(one)) is not None]
    if not placed:
        return (), None
    common, _ = Counter(axes for _, axes in placed).most_common(1)[0]
    exact = next(one for one, axes in placed if axes == common).numbers("ImageOrientationPatient")
    row, column = np.array(exact[:3]), np.array(exact[3:])
    normal = np.cross(row, column)
    slices = []
    for one, axes in placed:
        if axes == common:
            place = np.array(one.numbers("ImagePositionPatient"))
            across = (float(place @ row), float(place @ column))
            slices.append(Slice(one, float(place @ normal), across, _number(one)))
    slices.sort(key=lambda each: (each.along, each.number if each.number is not None else 0))
    return tuple(slices), (float(normal[0]), float(normal[1]), float(normal[2]))


def _axes(one: Loaded) -> tuple[float, ...] | None:
    """Return the rounded directions of a slice of a volume, None of anything else."""
    try:
        if one.text("Modality") not in _VOLUMES or "LOCALIZER" in one.texts("ImageType"):
            return None
        axes, place = one.numbers("ImageOrientationPatient"), one.numbers("ImagePositionPatient")
    except Exception:  # noqa: BLE001 - a malformed value makes pydicom raise a dozen kinds of error
        return None
    if len(axes) != 6 or len(place) != 3:
        return None
    return tuple(round(value, _ROUND) + 0.0 for value in axes)


def _number(one: Loaded) -> int | None:
    try:
        found = one.number("InstanceNumber")
    except Exception:  # noqa: BLE001 - as above
        return None
    return None if found is None else int(found)
