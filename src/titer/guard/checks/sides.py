"""T1: left and right, as far as one object can tell: every place that names a side names the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

from titer.guard.checks.loaded import Loaded, text
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule

_LEFT = re.compile(r"(?<![A-Za-z])(left|lt|links|gauche|l[ -]?(cc|mlo|ml|lm|xccl))(?![A-Za-z])", re.IGNORECASE)
_RIGHT = re.compile(r"(?<![A-Za-z])(right|rt|rechts|droite?|r[ -]?(cc|mlo|ml|lm|xccl))(?![A-Za-z])", re.IGNORECASE)
_TEXTS = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
)
_CODES = {"7771000": "L", "24028007": "R", "G-A101": "L", "G-A100": "R"}
"""SNOMED CT and SRT codes of left and right (PS3.16, CID 244)."""
_UNPAIRED = {"HEAD", "SKULL", "BRAIN", "CHEST", "ABDOMEN", "PELVIS", "CSPINE", "TSPINE", "LSPINE", "SPINE", "NECK",
             "HEART", "LIVER", "WHOLEBODY", "SSPINE"}  # fmt: skip


def _told(one: Loaded) -> dict[str, str]:
    """Return what each place says: L or R; what says both or neither is left out."""
    found = {key: side for key in ("Laterality", "ImageLaterality") if (side := one.text(key)) in ("L", "R")}
    for key in _TEXTS:
        left, right = bool(_LEFT.search(one.text(key))), bool(_RIGHT.search(one.text(key)))
        if left != right:
            found[key] = "L" if left else "R"
    for region in one.dataset.get("AnatomicRegionSequence") or ():
        for modifier in region.get("AnatomicRegionModifierSequence") or ():
            if text(modifier, "CodeValue") in _CODES:
                found["AnatomicRegionModifierSequence"] = _CODES[text(modifier, "CodeValue")]
    return found


def _one_side(one: Loaded, _past: Past) -> Iterator[Hit]:
    found = _told(one)
    if len(set(found.values())) > 1:
        yield Hit(reason=f"left and right contradict each other: {', '.join(found)}", evidence=found)


def _paired(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Laterality is of paired parts only (PS3.3, C.7.3.1)."""
    part, side = one.text("BodyPartExamined").replace(" ", ""), one.text("Laterality")
    if side in ("L", "R") and part in _UNPAIRED:
        yield Hit(
            reason="an unpaired part of the body has a Laterality",
            evidence={"BodyPartExamined": part, "Laterality": side},
            habit=f"{part}/{side}",
        )


def _breast(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Mammograms: the nipple points away from the chest wall, which is on the side's own side (PS3.3, C.8.11.7).

    A left breast's rows run to the anterior and its columns to the right (IHE Mammography Image, 4.16.4.2.2.1.1), a
    right breast's to the posterior and to the left.
    """
    side, told = one.text("ImageLaterality"), one.texts("PatientOrientation")
    if one.text("Modality") != "MG" or side not in ("L", "R") or len(told) != 2:
        return
    expected = {"L": ("A", "R"), "R": ("P", "L")}[side]
    if told[0][:1] in ("A", "P") and (told[0][:1] != expected[0] or not _holds(told[1], expected[1])):
        yield Hit(
            reason="PatientOrientation is not that of the breast that ImageLaterality names",
            evidence={"ImageLaterality": side, "PatientOrientation": told, "expected": expected},
            habit="\\".join((side, *told)),
        )


def _holds(told: str, side: str) -> bool:
    """Whether letters name a side, or no side at all."""
    return side in told or not {"L", "R"} & set(told)


def _projection(one: Loaded, _past: Past) -> Iterator[Hit]:
    """Frontal projections are hung with the patient's left to the viewer's right: rows run to the left, L."""
    told = one.texts("PatientOrientation")
    frontal = one.text("Modality") in ("CR", "DX") and one.text("ViewPosition") in ("AP", "PA", "")
    if frontal and len(told) == 2 and told[0] == "R":
        yield Hit(
            reason="a projection's rows run to the patient's right: hung the wrong way round, or mirrored",
            evidence={"PatientOrientation": told},
            habit="\\".join(told),
        )


RULES: tuple[Rule[Loaded], ...] = (
    Rule(name="one-side", catches="places that contradict each other (laterality-flip)", look=_one_side),
    Rule(name="paired-part", catches="a side of what has none", look=_paired),
    Rule(name="breast-side", catches="a mammogram of the other breast (laterality-flip)", look=_breast),
    Rule(name="projection-side", catches="a projection hung the wrong way (laterality-flip)", look=_projection),
)
