"""From a file or a request to the rows that a model takes, by the bundle's contract and no other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from titer.guard.judge.bundle import InputPart
from titer.guard.judge.frames import Picture, pictures

Array = NDArray[np.float32]
_PERCENTILES = (0.5, 99.5)


def image_rows(content: bytes, contract: InputPart, most: int) -> list[Tensor]:
    """Return a float32[1, C, H, W] in raw units for each frame of a DICOM file: windowed to the value range, resized.

    A grey frame fills every channel; a coloured one needs a model of three.

    Raises:
        ValueError: the model takes no images, or no colour; the file holds no image that can be read, or more than
            `most` frames; the reason, in a few words.
    """
    if contract.kind != "image" or len(contract.shape) != 3:
        raise ValueError(f"the model takes {contract.kind}, not images")
    return [_row(found, contract) for found in pictures(content, most)]


def _row(found: Picture, contract: InputPart) -> Tensor:
    channels, *sides = contract.shape
    if len(found.values) not in (1, channels):
        raise ValueError(f"is in colour, and the model takes {channels} channel(s)")
    low, high = _window(found, contract)
    values = torch.from_numpy(found.values)[None]
    share = ((values - low) / max(high - low, 1e-12)).clamp(0, 1)
    if list(share.shape[2:]) != sides:
        share = functional.interpolate(share, size=tuple(sides), mode="bilinear", antialias=True, align_corners=False)
    bottom, top = contract.value_range or (0.0, 1.0)
    return (bottom + (top - bottom) * share.clamp(0, 1)).expand(1, channels, *sides).contiguous()


def rows_of(values: object, shape: list[int], contract: InputPart, most: int) -> Array:
    """Return float32[N, ...] of a request's numbers, or say what is wrong with them.

    Args:
        values: nested or flat lists of numbers.
        shape: what the request says, [N, ...].
        contract: what the model takes.
        most: rows of one request.

    Raises:
        ValueError: another shape, no numbers, values that are not finite or out of range; one line.
    """
    if list(shape[1:]) != list(contract.shape) or not shape or not 1 <= shape[0] <= most:
        raise ValueError(
            f"shape = {shape}: allowed is [N, {', '.join(map(str, contract.shape))}] with N from 1 to {most}"
        )
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError("data: the lists are not of one length") from None
    if array.dtype.kind not in "iuf":
        raise ValueError("data: allowed are numbers alone")
    if array.size != int(np.prod(shape)) or (array.ndim > 1 and list(array.shape) != shape):
        raise ValueError(f"data holds {array.size} numbers of shape {list(array.shape)}: shape = {shape} needs others")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array.reshape(shape), dtype=np.float32)
    _check_values(rows, contract)
    return rows


def _check_values(rows: Array, contract: InputPart) -> None:
    if not np.isfinite(rows).all():
        raise ValueError("data holds values that are no finite numbers")
    if contract.value_range is not None:
        low, high = contract.value_range
        if rows.min() < low or rows.max() > high:
            found = f"{float(rows.min()):g} to {float(rows.max()):g}"
            raise ValueError(
                f"data holds values from {found}: allowed are {low:g} to {high:g} {contract.unit}".rstrip()
            )
    if contract.kind == "notes" and (rows != np.round(rows)).any():
        raise ValueError("data holds fractions: allowed are ids of words, whole numbers")


def _window(found: Picture, contract: InputPart) -> tuple[float, float]:
    if contract.window == "stored":
        return found.value_range
    if contract.window == "image":
        low, high = np.percentile(found.values, _PERCENTILES)
        return float(low), float(high)
    return contract.window
