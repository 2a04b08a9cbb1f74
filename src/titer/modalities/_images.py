"""Raw grey levels of image files, and what every modality of images shares: units and the box of the grey levels."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from titer.core.extras import need
from titer.modalities._dicom import read_dicom
from titer.threats.rules import Box

RANGES: dict[str, tuple[float, float]] = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
"""The value range of each kind of stored grey level."""

_REASON_LENGTH = 80
_MOST_PIXELS = 100_000_000
"""No medical picture has more; a file of a few bytes may claim to."""


class Picture(NamedTuple):
    """One image: `pixels` [channels, H, W] and the lowest and highest value that its file can store."""

    pixels: np.ndarray
    value_range: tuple[float, float]

    @property
    def depth(self) -> str:
        """What its values are, in words: all images of a data set must have one depth."""
        if self.pixels.dtype.kind == "u":
            return f"{8 * self.pixels.itemsize} bits"
        return f"of stored values from {self.value_range[0]:g} to {self.value_range[1]:g}"


def image_units(value_range: tuple[float, float]) -> dict[str, float]:
    """Return the raw size of one of each unit: a grey level, a 255th of the range, and the whole range."""
    width = value_range[1] - value_range[0]
    return {"grey level": 1.0, "/255": width / 255.0, "range": width}


def grey_box(value_range: tuple[float, float]) -> Box:
    """Return the rule that every value lies in the range."""
    low, high = value_range
    return Box(low=low, high=high, text=f"each grey level in [{low:g}, {high:g}]")


def read_picture(path: Path, channels: int, size: tuple[int, int] | None) -> Picture:
    """Return one image file with its range: grey levels, or what a DICOM file stores after its rescale.

    Raises:
        ValueError: as `read_pixels` and `read_dicom`.
    """
    if path.suffix.lower() != ".dcm":
        pixels = read_pixels(path, channels, size)
        return Picture(pixels, RANGES[pixels.dtype.name])
    found = read_dicom(path)
    values = found.values
    if size is not None and values.shape != tuple(size):
        image = need("PIL.Image", "imaging")
        resized = image.fromarray(values, mode="F").resize((size[1], size[0]), image.Resampling.BILINEAR)
        values = np.asarray(resized, dtype=np.float32)
    return Picture(np.repeat(values[None], channels, axis=0), found.value_range)


def read_pixels(path: Path | IO[bytes], channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """Return one image's grey levels [channels, H, W], uint8 or uint16, resized to `size` (H, W) where given.

    Colour becomes luminance (ITU-R 601-2) for one channel; grey levels are repeated for three.

    Raises:
        ValueError: the file holds no image that can be read as such; the message is the reason, in a few words.
    """
    image = need("PIL.Image", "imaging")
    try:
        with image.open(path) as opened:
            pixels = _resized(_converted(opened, channels), size)
    except image.UnidentifiedImageError:
        raise ValueError("not an image") from None
    except Exception as error:  # noqa: BLE001 - a broken file makes Pillow raise a dozen kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:_REASON_LENGTH]
        raise ValueError(reason) from None
    stacked = np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(stacked.transpose(2, 0, 1))


def _converted(opened: Any, channels: int) -> Any:
    """Return an image of mode `L`, `RGB` or `I;16`."""
    if opened.width * opened.height > _MOST_PIXELS:
        raise ValueError(f"claims {opened.width} x {opened.height} pixels, allowed are {_MOST_PIXELS} in all")
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # an MPO is a phone's JPEG with previews behind the picture
        raise ValueError(f"holds {frames} frames, allowed is one")
    if opened.mode.startswith("I;16"):
        return opened
    if opened.mode in ("I", "F") or ";16" in str(opened.tile):
        # Pillow would keep only 8 of the 16 bits of a colour image, and says nothing.
        raise ValueError(f"{opened.mode} with more than 8 bits, allowed are 8 bits, or 16 bits of grey")
    return opened.convert("L" if channels == 1 else "RGB")


def _resized(picture: Any, size: tuple[int, int] | None) -> np.ndarray:
    """Return the picture's values, resized bilinearly with antialiasing."""
    if size is not None and picture.size != (size[1], size[0]):
        image = need("PIL.Image", "imaging")
        picture = picture.resize((size[1], size[0]), image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels.astype(np.uint16 if pixels.dtype.itemsize == 2 else np.uint8)
