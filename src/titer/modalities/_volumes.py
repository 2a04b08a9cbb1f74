"""Volumes of NIfTI, NRRD and DICOM series: float32[D, H, W] in the file's own units."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from titer.core.extras import need
from titer.modalities._dicom import read_series
from titer.modalities._nrrd import read_nrrd

ENDINGS = (".nii", ".nii.gz", ".nrrd")
_MOST_BYTES = 512 * 2**20
_AXES = 3
_MAGIC = 348


def read_volume(path: Path) -> np.ndarray:
    """Return the values [D, H, W] of a NIfTI or NRRD file, or of a folder that holds one DICOM series.

    Raises:
        ValueError: it cannot be read as one volume; the message is the reason, in a few words.
    """
    if path.is_dir():
        # Files are read one by one: of a series there is never more in memory than its pixels and one file.
        files = [(file.name, file) for file in sorted(path.iterdir()) if file.suffix.lower() == ".dcm"]
        return read_series(files)[0]
    if not path.is_file():
        raise ValueError("no such file")
    volume = read_nrrd(path) if path.name.lower().endswith(".nrrd") else read_nifti(path)
    if volume.ndim != _AXES:
        raise ValueError(f"has {volume.ndim} axes, allowed are {_AXES}")
    return volume


def read_nifti(path: Path) -> np.ndarray:
    """Return the values [D, H, W] of a NIfTI-1 or NIfTI-2 file after its own scaling, axes as D, H, W = z, y, x.

    Raises:
        ValueError: no NIfTI file, cut short, or claiming an absurd size.
    """
    nibabel = need("nibabel", "imaging")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES} bytes")
    with _unpacked(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _image(nibabel, stream)
            return _planes(image.dataobj, _three_axes(image.shape))
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file makes nibabel raise a dozen kinds of error
            reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
            raise ValueError(f"damaged or cut short: {reason}") from None


def _planes(stored: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32[D, H, W] of what is stored as [W, H, D], read plane by plane."""
    if stored.offset > _MOST_BYTES:
        raise ValueError(f"its values begin at byte {stored.offset}, allowed are {_MOST_BYTES}")
    volume = np.empty(shape[::-1], dtype=np.float32)
    for place in range(len(volume)):
        plane = np.asarray(stored[:, :, place], dtype=np.float64).reshape(shape[:2]).astype(np.float32)
        if not np.isfinite(plane).all():
            raise ValueError("holds values that are NaN or infinite")
        volume[place] = plane.T
    return volume


def _three_axes(claimed: Sequence[int]) -> tuple[int, ...]:
    """Return the claimed shape without trailing axes of 1; ValueError where it is none of a volume."""
    shape = tuple(int(side) for side in claimed)
    while len(shape) > _AXES and shape[-1] == 1:
        shape = shape[:-1]
    needed = int(np.prod([max(side, 0) for side in shape], dtype=object)) * 8
    if len(shape) != _AXES or not 0 < needed <= 2 * _MOST_BYTES:
        raise ValueError(f"has the shape {tuple(claimed)}: allowed are three axes and {_MOST_BYTES} bytes")
    return shape


def _unpacked(path: Path) -> BinaryIO:
    """Return a stream of the file's bytes, unpacked as they are read."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")


def _image(nibabel: Any, stream: BinaryIO) -> Any:
    """Return the lazy image of a NIfTI-1 or NIfTI-2 file by its magic number; no value is decoded."""
    kinds = {b"n+1\0": "Nifti1Image", b"n+2\0": "Nifti2Image"}
    start = stream.read(_MAGIC)
    for magic, kind in kinds.items():
        if start[344:348] == magic or start[4:8] == magic:
            stream.seek(0)
            return getattr(nibabel, kind).from_stream(stream)
    raise ValueError("no NIfTI file: its magic number is neither n+1 nor n+2")
