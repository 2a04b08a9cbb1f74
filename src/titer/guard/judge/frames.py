"""The images of one DICOM file, as the worker decodes them: grey or colour, one frame or several.

Pixels are decoded in the worker process alone: its memory is capped, and a decoder that dies takes no verdict with it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titer.core.extras import need
from titer.modalities._dicom import read_dicom

GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_TAGS = ["NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"]
_MOST_BYTES = 1 << 29
_DEFLATED, _META = b"1.2.840.10008.1.2.1.99", 64 * 1024
_LARGEST = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One frame: `values` float32[C, H, W], C = 1 (grey, rescaled) or 3 (RGB), and the ends of what they can be."""

    values: NDArray[np.float32]
    value_range: tuple[float, float]


def pictures(content: bytes, most: int) -> Iterator[Picture]:
    """Yield the frames of a DICOM file, in their order; each is decoded when it is asked for.

    Colour (RGB, YBR and palettes, PS3.3, C.7.6.3.1.2) becomes RGB. Grey levels are rescaled, by the frame's own
    functional group where it has one (PS3.3, C.7.6.16.2.9), and MONOCHROME1 is turned.

    Raises:
        ValueError: no image, more than `most` frames, or one that cannot be read; the reason, in a few words.
    """
    pydicom = need("pydicom", "imaging")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever is odd about a header is for the checks to say
        try:
            if _is_plain(pydicom, content):
                found = read_dicom(content)
                yield Picture(values=found.values[None], value_range=found.value_range)
                return
            header = pydicom.dcmread(io.BytesIO(content))
            frames = _checked(header, most)
            for frame in range(frames):
                yield _coloured(header, frame) if _is_coloured(header) else _grey(header, frame)
        except ValueError as error:
            raise ValueError((str(error).splitlines() or ["a value is malformed"])[0][:120]) from None
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file makes pydicom raise a dozen kinds of error
            raise ValueError(f"cannot be read, damaged or cut short: {type(error).__name__}") from None


def frames_of(path: Path, most: int) -> int:
    """Return how many images the judge takes a file for: its frames, 1 where it has too many or cannot be read."""
    pydicom = need("pydicom", "imaging")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            found = int(header.get("NumberOfFrames") or 1)
    except Exception:  # noqa: BLE001 - as above
        return 1
    return found if 1 <= found <= most else 1


def _is_plain(pydicom: Any, content: bytes) -> bool:
    """Whether it is one grey image, or something that its reader refuses with a reason."""
    if content[128:132] != b"DICM" or _DEFLATED in content[:_META]:
        return True
    header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
    return int(header.get("NumberOfFrames") or 1) == 1 and header.get("PhotometricInterpretation") in (*GREY, None)


def _is_coloured(header: Any) -> bool:
    return header.PhotometricInterpretation not in GREY


def _checked(header: Any, most: int) -> int:
    """Return the number of frames; refuse, before anything is decoded, what is no image or claims an absurd size."""
    kind, allowed = header.get("PhotometricInterpretation"), (*GREY, *COLOURS, PALETTE)
    if "PixelData" not in header:
        raise ValueError("has no pixel data")
    if kind not in allowed:
        raise ValueError(f"PhotometricInterpretation = {str(kind)[:16]}, allowed are {', '.join(allowed)}")
    frames, bits, samples = (
        int(header.get("NumberOfFrames") or 1),
        int(header.BitsAllocated),
        int(header.SamplesPerPixel),
    )
    if not 1 <= frames <= most:
        raise ValueError(f"holds {frames} frames, allowed are 1 to {most} (judge.frames)")
    if bits not in (8, 16) or not 1 <= int(header.BitsStored) <= bits:
        raise ValueError(f"BitsAllocated = {bits}, BitsStored = {header.BitsStored}: allowed are 8 and 16, and no more")
    if samples != (3 if kind in COLOURS else 1):
        raise ValueError(f"SamplesPerPixel = {samples} is not that of {kind}")
    needed = int(header.Rows) * int(header.Columns) * samples * bits // 8
    if not 0 < needed <= _MOST_BYTES:
        raise ValueError(f"claims {header.Rows} x {header.Columns} pixels: allowed are 1 to {_MOST_BYTES} bytes")
    stored = needed * frames * 2 // 3 if kind == "YBR_FULL_422" else needed * frames
    if not header.file_meta.TransferSyntaxUID.is_compressed and len(header.PixelData) < stored:
        raise ValueError(f"is cut short: {frames} frames need {stored} bytes, {len(header.PixelData)} are there")
    return frames


def _decoded(header: Any, frame: int, shape: tuple[int, ...]) -> NDArray[Any]:
    pixels = need("pydicom.pixels", "imaging")
    found = np.asarray(pixels.pixel_array(header, index=frame))  # YBR becomes RGB in it
    if found.shape != shape:
        raise ValueError(f"decodes to {found.shape}, its header says {shape}")
    return found


def _coloured(header: Any, frame: int) -> Picture:
    sides = (int(header.Rows), int(header.Columns))
    if header.PhotometricInterpretation == PALETTE:
        pixels = need("pydicom.pixels", "imaging")
        found = np.asarray(pixels.apply_color_lut(_decoded(header, frame, sides), header))[..., :3]
        highest = float(2 ** (8 * found.dtype.itemsize) - 1)
    else:
        found = _decoded(header, frame, (*sides, 3))
        highest = float(2 ** int(header.BitsStored) - 1)
    if found.min() < 0 or found.max() > highest:
        raise ValueError(f"holds values of more than BitsStored = {header.BitsStored} bits")
    values = np.ascontiguousarray(found.transpose(2, 0, 1), dtype=np.float32)
    return Picture(values=values, value_range=(0.0, highest))


def _grey(header: Any, frame: int) -> Picture:
    stored = _decoded(header, frame, (int(header.Rows), int(header.Columns)))
    bits, signed = int(header.BitsStored), int(header.get("PixelRepresentation") or 0) == 1
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if int(stored.min()) < lowest or int(stored.max()) > highest:
        raise ValueError(f"holds values of more than BitsStored = {bits} bits")
    if header.PhotometricInterpretation == "MONOCHROME1":
        stored = highest + lowest - stored.astype(np.int64)
    slope, intercept = _rescale(header, frame)
    ends = sorted((lowest * slope + intercept, highest * slope + intercept))
    values = (stored * slope + intercept).astype(np.float32)
    return Picture(values=values[None], value_range=(ends[0], ends[1]))


def _rescale(header: Any, frame: int) -> tuple[float, float]:
    """Return slope and intercept: of the frame's own group, of the group that all share, or of the object."""
    source = header
    for groups in (header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")):
        found = _transformation(groups, frame)
        if found is not None:
            source = found
            break
    slope, intercept = (
        float(default if (told := source.get(name)) is None else told)
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if not (0 < abs(slope) <= _LARGEST and abs(intercept) <= _LARGEST):
        raise ValueError("RescaleSlope or RescaleIntercept is no number that a scanner writes")
    return slope, intercept


def _transformation(groups: Sequence[Any] | None, frame: int) -> Any:
    if not groups:
        return None
    told = groups[frame if frame < len(groups) else 0].get("PixelValueTransformationSequence")
    return told[0] if told else None
