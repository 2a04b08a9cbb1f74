"""DICOM: grey levels of one file, or of a series as a volume, in stored or modality units (Hounsfield)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from titer.core.extras import need

_MOST_BYTES = 512 * 2**20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META = 64 * 1024
"""Bytes that the file's own header is in."""

_NONE = np.empty((0, 0), dtype=np.float32)
"""A slice's values once the volume holds them."""

_REASON_LENGTH = 80
_OFF_GRID = 0.01
"""Of the distance between slices: positions are rounded in the header, but no slice is missing below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One image: `values` float32[H, W], after the header's rescale, and what places it in a series.

    `value_range` are the lowest and highest values that its stored bits can hold. `along` is its position along the
    normal of the slices in mm, None where the header has none.
    """

    values: np.ndarray
    value_range: tuple[float, float]
    series: str
    geometry: tuple[Any, ...]
    along: float | None
    instance: int | None


def read_dicom(source: Path | bytes) -> Slice:
    """Return the image of one DICOM file: grey levels after rescale, bright where tissue is (MONOCHROME1 is turned).

    Raises:
        ValueError: no DICOM, cut short, without pixels, in colour, several frames, or claiming an absurd size; the
            message is the reason, in a few words.
    """
    pydicom = need("pydicom", "imaging")
    content = source if isinstance(source, bytes) else _content(source)
    if content[128:132] != b"DICM":
        raise ValueError("no DICOM file: 'DICM' is not at byte 128")
    with warnings.catch_warnings():
        # pydicom warns of every value that the standard does not allow; what matters of them is checked below.
        warnings.simplefilter("ignore")
        try:
            return _slice(_header(pydicom, content))
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file makes pydicom raise a dozen kinds of error
            raise ValueError(f"cannot be read, damaged or cut short: {_reason(error)}") from None


def read_series(files: Sequence[tuple[str, bytes | Path]]) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the volume float32[D, H, W] of the named files of one series, sorted by position, and its value range.

    Raises:
        ValueError: a file that cannot be read, several series, other geometry, slices at one place or missing ones;
            the message names the files.
    """
    slices: list[tuple[str, Slice]] = []
    volume = np.empty((0, 0, 0), dtype=np.float32)
    for place, (name, source) in enumerate(files):
        try:
            one = read_dicom(source)
        except ValueError as reason:
            raise ValueError(f"{name}: {reason}") from None
        if not slices:
            volume = np.empty((len(files), *one.values.shape), dtype=np.float32)
        if one.values.shape == volume.shape[1:]:
            volume[place] = one.values
        slices.append((name, replace(one, values=_NONE)))
    if not slices:
        raise ValueError("no DICOM files: at least one is needed")
    _check_series(slices)
    order = sorted(range(len(slices)), key=lambda place: _place(slices[place][1]))
    placed = [slices[place] for place in order]
    _check_places(placed)
    _arrange(volume, order)
    ranges = [one.value_range for _, one in placed]
    return volume, (min(low for low, _ in ranges), max(high for _, high in ranges))


def _arrange(volume: np.ndarray, order: Sequence[int]) -> None:
    """Put slice `order[i]` of a volume [D, H, W] at place i, cycle by cycle: no second volume."""
    done = set[int]()
    for start in range(len(order)):
        if start in done:
            continue
        first, at = volume[start].copy(), start
        while order[at] != start:
            volume[at] = volume[order[at]]
            done.add(at)
            at = order[at]
        volume[at] = first
        done.add(at)


def _content(path: Path) -> bytes:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"has {path.stat().st_size} bytes, allowed are {_MOST_BYTES}")
    return path.read_bytes()


def _header(pydicom: Any, content: bytes) -> Any:
    # Looked for before pydicom does, which unpacks such a file as it opens it.
    if _DEFLATED in content[:_META]:
        raise ValueError("is deflated as a whole: a few bytes can unpack to gigabytes; store it uncompressed")
    return pydicom.dcmread(io.BytesIO(content))


def _slice(header: Any) -> Slice:
    rows, columns, bits = (_whole(header, name) for name in ("Rows", "Columns", "BitsAllocated"))
    _check_pixels(header, rows, columns, bits)
    stored = np.asarray(header.pixel_array)
    if stored.shape != (rows, columns):
        raise ValueError(f"decodes to {stored.shape}, its header says {rows} x {columns}")
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise ValueError("RescaleSlope is 0: every pixel would be the same")
    used = _whole(header, "BitsStored") if "BitsStored" in header else bits
    if not 1 <= used <= bits:
        raise ValueError(f"BitsStored = {used}, allowed are 1 to {bits} (BitsAllocated)")
    signed = _whole(header, "PixelRepresentation") == 1 if "PixelRepresentation" in header else False
    lowest, highest = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if signed else (0, 2**used - 1)
    if int(stored.min()) < lowest or int(stored.max()) > highest:
        raise ValueError(f"holds values of more than BitsStored = {used} bits")
    if header.PhotometricInterpretation == "MONOCHROME1":
        stored = highest + lowest - stored.astype(np.int64)
    ends = sorted((lowest * slope + intercept, highest * slope + intercept))
    return Slice(
        values=(stored * slope + intercept).astype(np.float32),
        value_range=(float(ends[0]), float(ends[1])),
        series=str(header.get("SeriesInstanceUID", "")),
        geometry=_geometry(header, rows, columns),
        along=_along(header),
        instance=_instance(header),
    )


def _check_pixels(header: Any, rows: int, columns: int, bits: int) -> None:
    """Refuse what holds no single grey image, or fewer bytes than it says, before anything is decoded."""
    if "PixelData" not in header:
        raise ValueError("has no pixel data")
    if bits not in (8, 16):
        raise ValueError(f"BitsAllocated = {bits}, allowed are 8 and 16")
    frames = _whole(header, "NumberOfFrames") if "NumberOfFrames" in header else 1
    channels = _whole(header, "SamplesPerPixel") if "SamplesPerPixel" in header else 1
    if frames != 1:
        raise ValueError(f"holds {frames} frames, allowed is one")
    kind = header.get("PhotometricInterpretation")
    if channels != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"PhotometricInterpretation = {kind}, allowed are MONOCHROME1 and MONOCHROME2")
    needed = rows * columns * bits // 8
    if not 0 < needed <= _MOST_BYTES:
        raise ValueError(f"claims {rows} x {columns} pixels: allowed are 1 to {_MOST_BYTES} bytes")
    found = len(header.PixelData)
    if not header.file_meta.TransferSyntaxUID.is_compressed and found < needed:
        raise ValueError(f"is cut short: {rows} x {columns} pixels need {needed} bytes, {found} are there")


def _geometry(header: Any, rows: int, columns: int) -> tuple[Any, ...]:
    spacing = tuple(round(float(one), 4) for one in header.get("PixelSpacing") or ())
    orientation = tuple(round(float(one), 3) for one in header.get("ImageOrientationPatient") or ())
    return rows, columns, spacing, orientation


def _along(header: Any) -> float | None:
    """Return the position along the normal of the image (PS3.3, C.7.6.2.1.1) in mm."""
    position, axes = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if not position or not axes or len(position) != 3 or len(axes) != 6:
        return None
    normal = np.cross([float(one) for one in axes[:3]], [float(one) for one in axes[3:]])
    along = float(normal @ np.array([float(one) for one in position]))
    if not np.isfinite(along):
        raise ValueError("ImagePositionPatient is not finite")
    return along


def _instance(header: Any) -> int | None:
    return int(header.InstanceNumber) if header.get("InstanceNumber") is not None else None


def _whole(header: Any, name: str) -> int:
    value = header.get(name)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is missing or no whole number") from None


def _number(header: Any, name: str, default: float) -> float:
    value = header.get(name)
    if value is None:
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number) or abs(number) > 1e6:
        raise ValueError(f"{name} is no number that a scanner writes")
    return number


def _check_series(slices: list[tuple[str, Slice]]) -> None:
    first_name, first = slices[0]
    for what, kind in (("series", "SeriesInstanceUID"), ("geometry", "size, spacing or orientation")):
        other = [name for name, one in slices if getattr(one, what) != getattr(first, what)]
        if other:
            raise ValueError(
                f"mixes {'series' if what == 'series' else 'geometries'}: {', '.join(other[:5])} differ(s) from "
                f"{first_name} in {kind}; allowed is one series of one geometry"
            )


def _place(one: Slice) -> tuple[float, float]:
    """Return what sorts slices: the position, else the number of the instance."""
    return (0.0, one.along) if one.along is not None else (1.0, float(one.instance or 0))


def _check_places(placed: list[tuple[str, Slice]]) -> None:
    where = [_place(one)[1] for _, one in placed]
    if len({_place(one)[0] for _, one in placed}) > 1:
        raise ValueError("has slices with and without ImagePositionPatient: allowed is all, or none")
    steps = np.diff(where)
    twice = np.flatnonzero(np.abs(steps) < 1e-4)
    if len(twice):
        first, second = (placed[int(twice[0]) + i][0] for i in (0, 1))
        raise ValueError(f"has two slices at one place: {first} and {second}")
    if len(steps) and steps.max() > (1 + _OFF_GRID) * np.median(steps) + 1e-3:
        gap = int(steps.argmax())
        raise ValueError(f"lacks slices between {placed[gap][0]} and {placed[gap + 1][0]}")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:_REASON_LENGTH]
