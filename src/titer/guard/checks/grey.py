"""T1: what grey levels mean: the interpretation, the line to units, and squares that no machine draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from titer.guard.checks.loaded import Loaded
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule

_SLICES = ("CT", "MR", "PT")
_DRAWN = ("US", "SC", "OT", "XC", "SR", "ES", "DOC", "NM", "RTDOSE", "SEG")
"""Modalities whose images may hold text, frames and scales."""
_USUAL_INTERCEPTS = (0.0, -1000.0, -1023.0, -1024.0, -2000.0, -2048.0, -3024.0, -4096.0, -8192.0, -32768.0)
_SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
_PADDING = -1500.0
_AIR = (-1100.0, -880.0)
_GAS = np.arange(-880.0, -599.0, 20.0)
"""Bins in which lungs are spread out, and in which the narrow peak of air outside the body must not lie."""
_PEAK = 0.1
_LEAST_SHARE = 0.01
_LEAST_SIDE = 6


def _shape(one: Loaded, _past: Past) -> Iterator[Hit]:
    """PresentationLUTShape says again what PhotometricInterpretation says (PS3.3, C.8.11.3.1.2)."""
    photometric, shape = one.text("PhotometricInterpretation"), one.text("PresentationLUTShape")
    if shape in _SHAPES.values() and _SHAPES.get(photometric, shape) != shape:
        yield Hit(reason="PhotometricInterpretation and PresentationLUTShape contradict each other",
                  evidence={"PhotometricInterpretation": photometric, "PresentationLUTShape": shape},
                  habit=f"{photometric}/{shape}")  # fmt: skip


def _background(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Slices of CT, MR and PET show air as black: in MONOCHROME1 they would show it as white."""
    if one.text("Modality") in _SLICES and one.text("PhotometricInterpretation") == "MONOCHROME1":
        evidence = {"PhotometricInterpretation": "MONOCHROME1"}
        yield Hit(reason="slices are never stored in MONOCHROME1", evidence=evidence, habit="MONOCHROME1")


def _line(one: Loaded, _past: Past) -> Iterator[Hit]:
    """RescaleSlope and RescaleIntercept of each modality.

    PET has the intercept 0 (PS3.3, C.8.9.4); Hounsfield units have the slope 1 and one of the intercepts that scanners
    use; a magnitude of MR is not lifted above 0.
    """
    slope, intercept = one.number("RescaleSlope"), one.number("RescaleIntercept")
    if slope is None or intercept is None:
        return
    modality, evidence = one.text("Modality"), {"RescaleSlope": slope, "RescaleIntercept": intercept}
    habit = f"{slope:.6g}/{intercept:.6g}"
    if slope == 0:
        yield Hit(reason="RescaleSlope is 0", evidence=evidence)
    elif modality == "PT" and intercept != 0:
        yield Hit(reason="PET has no RescaleIntercept but 0", evidence=evidence)
    elif modality == "MR" and intercept > 0:
        yield Hit(reason="MR is lifted above 0 by its RescaleIntercept", evidence=evidence, habit=habit)
    elif modality == "CT" and _hounsfield(one) and (slope != 1 or intercept not in _USUAL_INTERCEPTS):
        yield Hit(reason="this line to Hounsfield units is not one that scanners use", evidence=evidence, habit=habit)


def _hounsfield(one: Loaded) -> bool:
    return one.text("RescaleType") in ("HU", "") and "LOCALIZER" not in one.texts("ImageType")


def _air(one: Loaded, _past: Past) -> Iterator[Hit]:
    """CT: the darkest that is not padding is air, at -1000 Hounsfield units, or tissue; nothing in between."""
    slope, intercept = one.number("RescaleSlope"), one.number("RescaleIntercept")
    if one.text("Modality") != "CT" or not _hounsfield(one) or slope is None or intercept is None:
        return
    values = one.grey()
    if values is None:
        return
    units = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    units = units[units > _PADDING]
    if not units.size:
        return
    air = float((units < _AIR[1]).mean())
    peak = np.histogram(units, bins=_GAS)[0].max() / units.size
    if (peak > _PEAK and air < _LEAST_SHARE) or float((units < _AIR[0]).mean()) > _PEAK:
        yield Hit(reason="what is darkest in this CT is not at the Hounsfield units of air", habit="air",
                  evidence={"share_of_air": round(air, 3), "peak_above_it": round(float(peak), 3)})  # fmt: skip


def _square(one: Loaded, _past: Past) -> Iterator[Hit]:
    """A filled rectangle of one grey level within the image, as a patch or a marker is."""
    if one.text("Modality") in _DRAWN or one.text("BurnedInAnnotation") == "YES" or not one.native:
        return
    values = one.grey()
    if values is None or min(values.shape) < 4 * _LEAST_SIDE:
        return
    found = rectangle(values)
    if found is not None:
        top, left, height, width = found
        yield Hit(reason="the image holds a filled rectangle of one grey level", habit=f"{top},{left},{height},{width}",
                  evidence={"row": top, "column": left, "rows": height, "columns": width})  # fmt: skip


def rectangle(values: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return (row, column, rows, columns) of a region of one value that is exactly a rectangle, or None.

    Its sides are 6 pixels or more, it touches no edge of the image (collimators and padding do), and it is not as long
    as half the image. Its surroundings are of other values by the definition of a region.

    Args:
        values: [H, W].
    """
    from scipy.ndimage import find_objects, label

    flat = np.zeros(values.shape, dtype=bool)
    flat[1:, 1:] = (values[1:, 1:] == values[:-1, 1:]) & (values[1:, 1:] == values[1:, :-1]) & (
        values[1:, 1:] == values[:-1, :-1]
    )  # fmt: skip
    labels, _ = label(flat)
    for number, place in enumerate(find_objects(labels), start=1):
        rows, columns = place
        height, width = rows.stop - rows.start + 1, columns.stop - columns.start + 1
        if min(height, width) < _LEAST_SIDE or 2 * height > values.shape[0] or 2 * width > values.shape[1]:
            continue
        if (labels[place] == number).all() and _inside(values, rows.start - 1, columns.start - 1, height, width):
            return rows.start - 1, columns.start - 1, height, width
    return None


def _inside(values: np.ndarray, top: int, left: int, height: int, width: int) -> bool:
    """Whether the rectangle touches no edge, hardly a pixel beside it has its value, and most are steps away.

    A flat place of a smooth image (enlarged, or denoised) has neighbours one grey level away; what was put in has not.
    """
    if top < 1 or left < 1 or top + height >= values.shape[0] or left + width >= values.shape[1]:
        return False
    level = values[top, left]
    around = np.concatenate([
        values[top - 1, left - 1 : left + width + 1], values[top + height, left - 1 : left + width + 1],
        values[top : top + height, left - 1], values[top : top + height, left + width],
    ])  # fmt: skip
    away = np.abs(around.astype(np.float64) - float(level))
    return bool((away == 0).mean() < 0.1 and (away <= 1).mean() < 0.5)


RULES: tuple[Rule[Loaded], ...] = (
    Rule(name="presentation", catches="an interpretation against its own shape (photometric-flip)", look=_shape),
    Rule(name="background", catches="slices shown as their negative (photometric-flip)", look=_background),
    Rule(name="rescale", catches="lines to units that no machine uses (rescale)", look=_line),
    Rule(name="air", catches="Hounsfield units at which there is no air (rescale)", look=_air),
    Rule(name="rectangle", catches="a filled square (pixel-patch)", look=_square),
)
