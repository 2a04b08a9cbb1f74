"""The order of a series' slices, and the digest of a series in it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.engine import Row

from titer.core.extras import need

_TAGS = ["ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber"]


def in_order(rows: Iterable[Row[Any]]) -> list[Row[Any]]:
    """Return a series' rows of `objects` by position along the normal (PS3.3, C.7.6.2.1.1), else by instance number.

    What has neither, or cannot be read, comes last by its UID: any order will do for it, as long as it is always one.
    """
    return sorted(rows, key=lambda row: (*_place(Path(row.path)), row.sop_instance_uid, row.digest))


def series_digest(digests: Sequence[str]) -> str:
    """Return the SHA-256 of the digests of a series' objects, in the order given, one a line."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _place(path: Path) -> tuple[int, float]:
    pydicom = need("pydicom", "imaging")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whatever is odd about a header is for the checks to say
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            position, axes = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
            if position and axes and len(position) == 3 and len(axes) == 6:
                normal = np.cross([float(one) for one in axes[:3]], [float(one) for one in axes[3:]])
                return _finite(0, float(normal @ np.array([float(one) for one in position])))
            return _finite(1, float(header.InstanceNumber))
    except Exception:  # noqa: BLE001 - a damaged header makes pydicom raise a dozen kinds of error
        return 2, 0.0


def _finite(kind: int, value: float) -> tuple[int, float]:
    return (kind, value) if np.isfinite(value) else (2, 0.0)
