"""T1: where the image lies and how large it is, against what bodies and machines allow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from titer.guard.checks.loaded import Loaded
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule

_TOLERANCE = 1e-3
_PROJECTIONS = ("CR", "DX", "MG", "IO", "PX")
_MOST_FIELD = {"CT": 1000.0, "MR": 700.0, "PT": 1000.0, "CR": 500.0, "DX": 600.0, "MG": 400.0, "IO": 100.0, "PX": 400.0}
"""Longest side of an image in millimetres: bores, tables and detectors are no larger."""
_MOST_SPACING = {"CT": 3.0, "MR": 8.0, "PT": 10.0, "CR": 0.6, "DX": 0.6, "MG": 0.3, "IO": 0.3, "PX": 0.6}
"""Largest pixel in millimetres: planning CT, spectroscopic MR and whole-body PET have the largest of their kind."""
_LEAST_FIELD = {"CT": 20.0, "MR": 15.0, "PT": 50.0}
_SMALL = 128
_THICKEST = 100.0
_DIRECTIONS = (("L", "R"), ("P", "A"), ("H", "F"))


def _axes(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Row and column of unit length, at right angles (PS3.3, C.7.6.2.1.1)."""
    axes = one.numbers("ImageOrientationPatient")
    if not axes:
        return
    if len(axes) != 6:
        yield Hit(reason="ImageOrientationPatient has not six values", evidence={"values": len(axes)})
        return
    row, column = np.array(axes[:3]), np.array(axes[3:])
    lengths = (float(np.linalg.norm(row)), float(np.linalg.norm(column)))
    errors = (*(abs(length - 1) for length in lengths), abs(float(row @ column)))
    if max(errors) > _TOLERANCE:
        yield Hit(
            reason="ImageOrientationPatient is not orthonormal",
            evidence={"errors": [round(float(e), 5) for e in errors]},
        )


def _place(one: Loaded, _past: Past) -> Iterator[Hit]:
    place = one.numbers("ImagePositionPatient")
    if place and (len(place) != 3 or max(map(abs, place)) > 10_000):
        yield Hit(reason="ImagePositionPatient has not three values within ten metres", evidence={"values": len(place)})


def _size(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Spacing above 0, and a field of view that the machine can have."""
    modality = one.text("Modality")
    for key in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = one.numbers(key)
        if not spacing:
            continue
        if len(spacing) != 2 or min(spacing) <= 0:
            yield Hit(reason=f"{key} is not two numbers above 0", evidence={key: spacing})
            continue
        field = [
            float(one.dataset.get(side) or 0) * step for side, step in zip(("Rows", "Columns"), spacing, strict=True)
        ]
        evidence = {key: spacing, "field_mm": [round(side, 1) for side in field]}
        if max(field) > _MOST_FIELD.get(modality, math.inf) or max(spacing) > _MOST_SPACING.get(modality, math.inf):
            yield Hit(reason=f"{key} makes the image larger than {modality} can be", evidence=evidence)
        elif _is_tiny(one, field, modality):
            yield Hit(reason=f"{key} makes the image smaller than {modality} can be", evidence=evidence)


def _is_tiny(one: Loaded, field: list[float], modality: str) -> bool:
    large = min(int(one.dataset.get("Rows") or 0), int(one.dataset.get("Columns") or 0)) >= _SMALL
    return large and max(field) < _LEAST_FIELD.get(modality, 0.0)


def _diameter(one: Loaded, _past: Past) -> Iterator[Hit]:
    """CT: no image is larger than the circle that it was reconstructed in (PS3.3, C.8.2.1)."""
    diameter, spacing = one.number("ReconstructionDiameter"), one.numbers("PixelSpacing")
    if one.text("Modality") not in ("CT", "PT", "MR") or not diameter or diameter <= 0 or len(spacing) != 2:
        return
    side = max(float(one.dataset.get("Rows") or 0) * spacing[0], float(one.dataset.get("Columns") or 0) * spacing[1])
    if side > 1.5 * diameter:
        yield Hit(reason="the image is larger than its ReconstructionDiameter", habit="ReconstructionDiameter",
                  evidence={"ReconstructionDiameter": diameter, "field_mm": round(side, 1)})  # fmt: skip


def _thickness(one: Loaded, _past: Past) -> Iterator[Hit]:
    value = one.number("SliceThickness")
    if value is not None and (value < 0 or (value > _THICKEST and "LOCALIZER" not in one.texts("ImageType"))):
        yield Hit(reason="SliceThickness is below 0 or above 100 mm", evidence={"SliceThickness": value})


def _magnification(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Projections: PixelSpacing is the imager's, or smaller by a magnification of at most 4 (PS3.3, 10.7.1.3)."""
    at_imager, in_patient = one.number("ImagerPixelSpacing"), one.number("PixelSpacing")
    if one.text("Modality") in _PROJECTIONS and at_imager and in_patient and not 0.25 <= in_patient / at_imager <= 1.05:
        yield Hit(
            reason="PixelSpacing does not follow from ImagerPixelSpacing by any magnification",
            evidence={"ImagerPixelSpacing": at_imager, "PixelSpacing": in_patient},
            habit="magnification",
        )


def _directions(one: Loaded, _past: Past) -> Iterator[Hit]:
    """PatientOrientation says in letters what ImageOrientationPatient says in numbers (PS3.3, C.7.6.1.1.1)."""
    told, axes = one.texts("PatientOrientation"), one.numbers("ImageOrientationPatient")
    if len(told) != 2 or len(axes) != 6 or not all(told):
        return
    meant = tuple(_letter(axes[start : start + 3]) for start in (0, 3))
    if any(letters[0] != main for letters, main in zip(told, meant, strict=True)):
        yield Hit(
            reason="PatientOrientation is not what ImageOrientationPatient says",
            evidence={"PatientOrientation": told, "expected": meant},
            habit="\\".join((*told, *meant)),
        )


def _letter(axis: tuple[float, ...]) -> str:
    main = max(range(3), key=lambda i: abs(axis[i]))
    return _DIRECTIONS[main][0 if axis[main] > 0 else 1]


RULES: tuple[Rule[Loaded], ...] = (
    Rule(name="axes", catches="directions that are no right angle", look=_axes),
    Rule(name="place", catches="positions outside any room", look=_place),
    Rule(name="field-of-view", catches="spacings that no machine has (pixel-spacing)", look=_size),
    Rule(name="reconstruction-diameter", catches="spacings against the reconstruction (pixel-spacing)", look=_diameter),
    Rule(name="thickness", catches="slices that are no slices", look=_thickness),
    Rule(name="magnification", catches="spacings in patient and at imager that do not fit", look=_magnification),
    Rule(name="directions", catches="left and right exchanged in letters (laterality-flip)", look=_directions),
)
