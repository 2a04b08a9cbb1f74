"""The slices of a case: in which order they are shown, and their pixels as the viewer draws them.

Files are read here, in the thread of the request, with caps: nothing is decoded in the event loop.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titer.core.errors import TiterError
from titer.core.extras import need

MOST_BYTES = 64 << 20
"""Of one decoded frame; a larger one is not shown (a bomb, or an image that this viewer is not made for)."""
MOST_FRAMES = 4096
_TAGS = (
    "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "NumberOfFrames", "SOPInstanceUID",
)  # fmt: skip
JPEG_QUALITY = 75
_ORIENTATION_MIN = 1e-4


class NotShown(TiterError):  # noqa: N818 - says what happened
    """An image cannot be shown; the message says why, without anything of its content."""


class Changed(TiterError):  # noqa: N818 - says what happened
    """A file is not the one that was judged: showing it would mislead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One image: a frame of a file."""

    path: Path
    digest: str
    frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Pixels for the viewer: [rows, columns] int16 or uint16, or [rows, columns, 3] uint8, little-endian.

    A stored value v stands for slope * v + intercept (PS3.3, C.11.1); `window` is centre and width of those values.
    `sides` are the patient's directions at left, right, top and bottom; `spacing` row and column, mm.
    """

    pixels: NDArray[Any]
    slope: float
    intercept: float
    photometric: str
    window: tuple[float, float]
    sides: tuple[str, str, str, str]
    spacing: tuple[float, float]

    def headers(self) -> dict[str, str]:
        """Return what the viewer needs besides the bytes, as headers of its answer."""
        rows, columns = self.pixels.shape[:2]
        return {
            "Titer-Rows": str(rows),
            "Titer-Columns": str(columns),
            "Titer-Type": self.pixels.dtype.name,
            "Titer-Samples": str(1 if self.pixels.ndim == 2 else 3),
            "Titer-Slope": repr(self.slope),
            "Titer-Intercept": repr(self.intercept),
            "Titer-Photometric": self.photometric,
            "Titer-Window": f"{self.window[0]!r},{self.window[1]!r}",
            "Titer-Sides": ",".join(self.sides),
            "Titer-Spacing": f"{self.spacing[0]!r},{self.spacing[1]!r}",
        }


def ordered(rows: Sequence[Mapping[str, Any]]) -> list[Slice]:
    """Return the slices of some objects along the patient's axis, else by instance number, else as they came."""
    headed = [(row, _header(Path(row["path"]))) for row in rows]
    keys = [_position(header) for _, header in headed]
    if any(key is None for key in keys):
        keys = [_number(header) for _, header in headed]
    order = sorted(range(len(headed)), key=lambda i: (keys[i] or 0.0, i))
    out = []
    for row, header in (headed[i] for i in order):
        frames = min(max(int(header.get("NumberOfFrames", 1) or 1), 1), MOST_FRAMES)
        out += [Slice(path=Path(row["path"]), digest=row["digest"], frame=frame) for frame in range(frames)]
    return out


def picture(one: Slice) -> Picture:
    """Read and decode a slice.

    Raises:
        Changed: the file is gone or is not the one that was judged.
        NotShown: there is nothing in it that this viewer draws.
    """
    content = _judged(one)
    dicom, pixel = need("pydicom", "guard"), need("pydicom.pixels", "guard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom finds odd, the checks have said
        try:
            data = dicom.dcmread(io.BytesIO(content))
            _capped(data)
            array = pixel.pixel_array(data, index=one.frame)
            return _made(data, pixel, np.asarray(array))
        except NotShown:
            raise
        except Exception as error:  # noqa: BLE001 - a hostile file may raise anything in its decoder
            raise NotShown(f"this image cannot be decoded ({type(error).__name__})") from None


def sanitized(shown: Picture) -> Picture:
    """Return the picture as JPEG compression leaves it, in the same values: what a sanitized model sees.

    Grey values of the slice's whole range are mapped to 0 to 255, compressed with quality 75, and mapped back.
    """
    image = need("PIL.Image", "guard")
    pixels = shown.pixels
    low, high = int(pixels.min()), int(pixels.max())
    scale = 255.0 / max(high - low, 1)
    grey = np.rint((pixels.astype(np.float32) - low) * scale).astype(np.uint8)
    stream = io.BytesIO()
    image.fromarray(grey).save(stream, "JPEG", quality=JPEG_QUALITY)
    back = np.asarray(image.open(io.BytesIO(stream.getvalue())), dtype=np.float32)
    values = np.clip(np.rint(back / scale + low), low, high).astype(pixels.dtype)
    return Picture(**{**_fields(shown), "pixels": values})


def patient(one: Slice) -> dict[str, str]:
    """Return who is shown and what, from the file itself: for the page of who may see it, and stored nowhere."""
    names = {
        "PatientName": "Name", "PatientID": "Id", "PatientBirthDate": "Born", "PatientSex": "Sex",
        "StudyDate": "Study", "AccessionNumber": "Accession", "StudyDescription": "Study description",
        "SeriesDescription": "Series", "BodyPartExamined": "Body part", "Manufacturer": "Device",
    }  # fmt: skip
    try:
        data = _header(one.path, tuple(names))
    except TiterError:
        return {}
    return {said: _readable(name, str(data.get(name))) for name, said in names.items() if data.get(name)}


def _readable(name: str, value: str) -> str:
    """Return a name or date as people read it (PS3.5, section 6.2: PN, DA)."""
    if name == "PatientName":
        return ", ".join(part for part in value.split("=")[0].split("^") if part)
    if name.endswith("Date") and len(value) == 8 and value.isdigit():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return value


def _fields(shown: Picture) -> dict[str, Any]:
    return {name: getattr(shown, name) for name in Picture.__slots__}


def _judged(one: Slice) -> bytes:
    try:
        content = one.path.read_bytes()
    except OSError:
        raise Changed("the file is not there any more") from None
    if hashlib.sha256(content).hexdigest() != one.digest:
        raise Changed("the file is not the one that was judged: it was changed on disk")
    return content


def _header(path: Path, tags: tuple[str, ...] = _TAGS) -> Any:
    dicom = need("pydicom", "guard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
        except OSError:
            raise Changed("a file of this case is not there any more") from None
        except Exception as error:  # noqa: BLE001 - a hostile file may raise anything in its parser
            raise NotShown(f"a file of this case cannot be read ({type(error).__name__})") from None


def _position(header: Any) -> float | None:
    """Return how far along the slices' normal an image lies (PS3.3, C.7.6.2.1.1)."""
    try:
        where = np.array([float(v) for v in header.ImagePositionPatient])
        along = np.array([float(v) for v in header.ImageOrientationPatient])
        return float(np.dot(np.cross(along[:3], along[3:]), where))
    except (AttributeError, TypeError, ValueError):
        return None


def _number(header: Any) -> float:
    try:
        return float(header.InstanceNumber)
    except (AttributeError, TypeError, ValueError):
        return 0.0


def _capped(data: Any) -> None:
    if "PixelData" not in data:
        raise NotShown("this object holds no image")
    rows, columns, samples = int(data.Rows), int(data.Columns), int(data.SamplesPerPixel)
    size = rows * columns * samples * max(int(data.BitsAllocated) // 8, 1)
    if not 0 < size <= MOST_BYTES or samples not in (1, 3):
        raise NotShown(f"an image of {rows} x {columns} pixels is not shown: the most is {MOST_BYTES >> 20} MiB")


def _made(data: Any, pixel: Any, array: NDArray[Any]) -> Picture:
    photometric = str(data.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        array = pixel.apply_color_lut(array, data)
    if array.ndim == 3:
        if array.dtype != np.uint8:
            array = (array.astype(np.float32) * (255.0 / max(int(array.max()), 1))).astype(np.uint8)
        kept, slope, intercept, photometric = np.ascontiguousarray(array), 1.0, 0.0, "RGB"
    else:
        kept = _sixteen(array)
        slope, intercept = _number_of(data, "RescaleSlope", 1.0), _number_of(data, "RescaleIntercept", 0.0)
    return Picture(
        pixels=kept,
        slope=slope or 1.0,
        intercept=intercept,
        photometric=photometric,
        window=_window(data, kept, slope or 1.0, intercept),
        sides=_sides(data),
        spacing=_spacing(data),
    )


def _sixteen(array: NDArray[Any]) -> NDArray[Any]:
    low, high = int(array.min()), int(array.max())
    for kind in ("<i2", "<u2"):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.ascontiguousarray(array, dtype=kind)
    raise NotShown("pixel values of more than 16 bits are not shown")


def _number_of(data: Any, name: str, default: float) -> float:
    value = data.get(name)
    first = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and value else value
    try:
        found = float(first)
    except (TypeError, ValueError):
        return default
    return found if np.isfinite(found) else default


def _window(data: Any, pixels: NDArray[Any], slope: float, intercept: float) -> tuple[float, float]:
    """Return the file's own window, else one from the 0.5th to the 99.8th percentile of what is not background."""
    width = _number_of(data, "WindowWidth", 0.0)
    if width > 0 and pixels.ndim == 2:
        return _number_of(data, "WindowCenter", 0.0), width
    if pixels.ndim == 3:
        return 127.5, 255.0
    values = pixels.ravel()[:: max(pixels.size // 100_000, 1)] * slope + intercept
    seen = values[values > values.min()]
    low, high = np.percentile(seen if seen.size else values, [0.5, 99.8])
    return float(low + high) / 2, max(float(high - low), 1.0)


def _sides(data: Any) -> tuple[str, str, str, str]:
    """Return letters for left, right, top, bottom of the image (PS3.3, C.7.6.1.1.1); empty where it does not say."""
    opposite = str.maketrans("RLAPHF", "LRPAFH")
    given = data.get("PatientOrientation")
    along = data.get("ImageOrientationPatient")
    if along is not None and len(along) == 6:
        right, bottom = _letters(along[:3]), _letters(along[3:])
    elif given and len(given) == 2:
        right, bottom = (str(one)[:3].upper() for one in given)
    else:
        return ("", "", "", "")
    return (right.translate(opposite), right, bottom.translate(opposite), bottom)


def _letters(direction: Any) -> str:
    parts = sorted(zip((float(v) for v in direction), ("LR", "PA", "HF"), strict=True), key=lambda p: -abs(p[0]))
    biggest = max(abs(parts[0][0]), _ORIENTATION_MIN)
    return "".join(names[0 if value > 0 else 1] for value, names in parts if abs(value) > 0.35 * biggest)[:2]


def _spacing(data: Any) -> tuple[float, float]:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        given = data.get(name)
        if given and len(given) == 2 and all(float(v) > 0 for v in given):
            return float(given[0]), float(given[1])
    return 1.0, 1.0
