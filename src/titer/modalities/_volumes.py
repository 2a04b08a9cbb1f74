"""Volumes of NIfTI, NRRD and DICOM series: float32[D, H, W] in the file's own units."""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from titer.core.extras import need
from titer.modalities._dicom import read_series
from titer.modalities._nrrd import read_nrrd

ENDINGS = (".nii", ".nii.gz", ".nrrd")
_MOST_BYTES = 512 * 2**20
_AXES = 3


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
    content = _content(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _image(nibabel, content)
            shape = _three_axes(image.shape)
            values = np.asarray(image.dataobj, dtype=np.float64).reshape(shape)
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file makes nibabel raise a dozen kinds of error
            reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
            raise ValueError(f"damaged or cut short: {reason}") from None
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise ValueError("holds values that are NaN or infinite")
    return np.ascontiguousarray(single.transpose(2, 1, 0))


def _three_axes(claimed: Sequence[int]) -> tuple[int, ...]:
    """Return the claimed shape without trailing axes of 1; ValueError where it is none of a volume."""
    shape = tuple(int(side) for side in claimed)
    while len(shape) > _AXES and shape[-1] == 1:
        shape = shape[:-1]
    needed = int(np.prod([max(side, 0) for side in shape], dtype=object)) * 8
    if len(shape) != _AXES or not 0 < needed <= 2 * _MOST_BYTES:
        raise ValueError(f"has the shape {tuple(claimed)}: allowed are three axes and {_MOST_BYTES} bytes")
    return shape


def _content(path: Path) -> bytes:
    """Return the file's bytes, unpacked, and no more of them than any volume has."""
    with path.open("rb") as stream:
        packed = stream.read(_MOST_BYTES + 1)
    if packed[:2] != b"\x1f\x8b":
        unpacked = packed
    else:
        try:
            with gzip.open(io.BytesIO(packed)) as stream:
                unpacked = stream.read(_MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"its gzip data are damaged or cut short: {str(error)[:60]}") from None
    if len(unpacked) > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES} bytes")
    return unpacked


def _image(nibabel: Any, content: bytes) -> Any:
    """Return the lazy image of a NIfTI-1 or NIfTI-2 file by its magic number; nothing is decoded."""
    kinds = {b"n+1\0": "Nifti1Image", b"n+2\0": "Nifti2Image"}
    for magic, kind in kinds.items():
        if content[344:348] == magic or content[4:8] == magic:
            return getattr(nibabel, kind).from_bytes(content)
    raise ValueError("no NIfTI file: its magic number is neither n+1 nor n+2")
