"""Stored grey levels of a DICOM image, and the slices of a volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from titer.core.errors import Incompatible
from titer.tampers._dicom import Datasets

if TYPE_CHECKING:
    from pydicom import FileDataset

Grey = np.ndarray
"""float64[H, W], stored values."""

Change = Callable[[Grey], tuple[Grey, str]]
"""Returns the changed values of a slice, and what was done to it."""

_FEWEST = 3
_BODY = 0.1


def grey_levels(name: str, dataset: FileDataset) -> Grey:
    """Return the stored values of an image.

    Raises:
        Incompatible: it is compressed, in colour, of several frames, or its pixels are not as long as it says.
    """
    stored = _stored(name, dataset)
    values: Grey = np.frombuffer(dataset.PixelData, dtype=stored, count=int(dataset.Rows) * int(dataset.Columns))
    return values.reshape(int(dataset.Rows), int(dataset.Columns)).astype(np.float64)


def put_grey_levels(name: str, dataset: FileDataset, values: Grey) -> int:
    """Store float64[H, W] as whole numbers that the image's bits can hold; return how many pixels differ now."""
    low, high = allowed(dataset)
    stored, before = _stored(name, dataset), grey_levels(name, dataset)
    after = np.clip(np.rint(values), low, high)
    content = after.astype(stored).tobytes()
    dataset.PixelData = content + dataset.PixelData[len(content) :]
    return int((after != before).sum())


def allowed(dataset: FileDataset) -> tuple[int, int]:
    """Return the lowest and the highest value that the image's bits can hold."""
    bits = min(max(int(dataset.get("BitsStored") or dataset.BitsAllocated), 1), int(dataset.BitsAllocated))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(dataset.PixelRepresentation) else (0, 2**bits - 1)


def _stored(name: str, dataset: FileDataset) -> np.dtype:
    for key in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation", "PixelData"):
        if dataset.get(key) is None:
            raise Incompatible(f"{name} has no {key}: an image is needed")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        raise Incompatible(f"{name} is compressed ({syntax.name}): allowed are uncompressed pixels")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or int(dataset.get("NumberOfFrames") or 1) != 1:
        raise Incompatible(f"{name} is in colour or of several frames: allowed is one image of grey levels")
    if int(dataset.BitsAllocated) not in (8, 16):
        raise Incompatible(f"{name} has BitsAllocated = {dataset.BitsAllocated}: allowed are 8 and 16")
    kind = f"{'<' if syntax.is_little_endian else '>'}{'iu'[not int(dataset.PixelRepresentation)]}"
    stored = np.dtype(f"{kind}{int(dataset.BitsAllocated) // 8}")
    wanted = int(dataset.Rows) * int(dataset.Columns) * stored.itemsize
    if not 0 < wanted <= len(dataset.PixelData) <= wanted + 1:
        raise Incompatible(f"{name} has {len(dataset.PixelData)} bytes of pixels, not the {wanted} of its size")
    return stored


def slices(datasets: Datasets) -> list[str]:
    """Return the files of one volume in the order in which they lie in the body.

    Raises:
        Incompatible: several series or sizes, fewer than three slices, or places that are not told.
    """
    kinds = {(str(one.get("SeriesInstanceUID")), one.get("Rows"), one.get("Columns")) for one in datasets.values()}
    if len(kinds) > 1:
        raise Incompatible(f"the files are of {len(kinds)} series or sizes: one volume is needed")
    if len(datasets) < _FEWEST:
        raise Incompatible(f"a volume needs {_FEWEST} slices or more, not {len(datasets)}")
    places = {name: _place(name, one) for name, one in datasets.items()}
    return sorted(places, key=places.__getitem__)


def _place(name: str, dataset: FileDataset) -> float:
    """Return how far a slice lies along the volume's normal (DICOM PS3.3, C.7.6.2.1.1)."""
    position, axes = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
    if position is None or axes is None or len(position) != 3 or len(axes) != 6:
        raise Incompatible(f"{name} does not say where it lies (ImagePositionPatient, ImageOrientationPatient)")
    row, column = np.array(axes[:3], dtype=float), np.array(axes[3:], dtype=float)
    return float(np.dot(np.cross(row, column), np.array(position, dtype=float)))


def in_one_slice(datasets: Datasets, number: int | None, change: Change) -> Mapping[str, str]:
    """Change the grey levels of one slice, the `number`-th from 0 or the middle one, and no other.

    Raises:
        Incompatible: no volume, no such slice, or nothing changes in it.
    """
    names = slices(datasets)
    if number is not None and number >= len(names):
        raise Incompatible(f"slice = {number}: the volume has slices 0 to {len(names) - 1}")
    name = names[len(names) // 2 if number is None else number]
    values, told = change(grey_levels(name, datasets[name]))
    count = put_grey_levels(name, datasets[name], values)
    if not count:
        raise Incompatible(f"{name}: no pixel changes: the image has one grey level, or no more room")
    return {name: f"{told}; {count} pixels of slice {names.index(name)} of {len(names)}, in no other slice"}


def body(values: Grey) -> np.ndarray:
    """Return bool[H, W]: what is brighter than a tenth of the range, air left out."""
    low, high = np.percentile(values, (1, 99))
    inside: np.ndarray = values > low + _BODY * (high - low)
    return inside


def disc(shape: tuple[int, ...], row: int, column: int, radius: int) -> np.ndarray:
    """Return float64[H, W]: distance from a place, as a share of the radius."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance: np.ndarray = np.hypot(rows - row, columns - column) / radius
    return distance
