"""Arrays to PNG data URIs: the image itself, and a difference around zero in blue and red."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
# ColorBrewer's RdBu ends: a diverging pair that colour-blind readers tell apart; white is no change
_BLUE = np.array([5, 72, 145], dtype=np.float32)
_RED = np.array([178, 24, 43], dtype=np.float32)
_LARGEST = 512
_VOLUME = 4


def to_planes(image: Floats, *, channels_first: bool, place: int | None = None) -> Floats:
    """Return an image as [H, W, C]; of a volume slice `place`, the middle one by default."""
    if image.ndim == 2:
        return image[:, :, None]
    planes = np.moveaxis(image, 0, -1) if channels_first else image
    while planes.ndim > 3:
        planes = planes[planes.shape[0] // 2 if place is None else place]
    return planes


def changed_slices(change: Floats, *, channels_first: bool) -> tuple[int, ...]:
    """Return which slices of a volume change, the one that changes most first; nothing for an image.

    Args:
        change: [C, D, H, W], or [D, H, W, C].
        channels_first: which of the two.
    """
    if change.ndim != _VOLUME:
        return ()
    axes = (0, 2, 3) if channels_first else (1, 2, 3)
    largest = np.abs(change).max(axes)
    order = np.argsort(-largest, kind="stable")
    return tuple(int(place) for place in order if largest[place] > 0)


def picture(planes: Floats, low: float, high: float) -> str:
    """Return [H, W, C] as a PNG data URI, `low` black, `high` white; C = 3 is colour, else the first plane is shown."""
    scaled = np.clip((planes - low) / ((high - low) or 1.0), 0, 1) * 255
    pixels = np.round(scaled).astype(np.uint8)
    return _png(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])


def difference(change: Floats, limit: float) -> str:
    """Return the signed change [H, W, C] as a PNG data URI: `-limit` blue, 0 white, `limit` red.

    Of several channels the one that changes most speaks for its pixel.
    """
    most = np.take_along_axis(change, np.abs(change).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    share = np.clip(most / (limit or 1.0), -1, 1)[:, :, None]
    ends = np.where(share < 0, _BLUE, _RED)
    return _png(np.round(255 + (ends - 255) * np.abs(share)).astype(np.uint8))


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image  # here, so that reading a run without images needs no imaging library

    stride = max(1, -(-max(pixels.shape[:2]) // _LARGEST))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::stride, ::stride])).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
