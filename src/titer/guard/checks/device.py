"""T1: what is usual for the device that made an object, learned from its series that passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from titer.guard.checks.loaded import Loaded
from titer.guard.checks.past import Past
from titer.guard.checks.rule import Hit, Rule

CODES = ("SOPClassUID", "Modality", "PhotometricInterpretation", "BitsStored", "PixelRepresentation", "RescaleType",
         "PatientOrientation", "PresentationLUTShape")  # fmt: skip
MEASURES = ("PixelSpacing", "ImagerPixelSpacing", "RescaleSlope", "RescaleIntercept", "SliceThickness")
_FEWEST = 5
_KINDS = 4
_FIXED = ("RescaleSlope", "RescaleIntercept")
"""Measures that a device may always give the same value; spacing and thickness are chosen for each patient."""


def values(one: Loaded) -> Iterator[tuple[str, str]]:
    """Yield the (attribute, value) pairs of an object that a device's baseline counts, malformed ones left out."""
    for key in CODES:
        told = "\\".join(one.texts(key)) if key == "PatientOrientation" else one.text(key)
        yield key, told or "-"
    for key in MEASURES:
        try:
            yield from ((key, f"{number:.6g}") for number in one.numbers(key)[:1])
        except (ValueError, TypeError):
            continue


def _unusual(one: Loaded, past: Past) -> Iterator[Hit]:
    """A value that at least five series of the device never had.

    Slopes and intercepts that take few values are compared as codes. Other measures must lie within half the least and
    twice the greatest that was seen, intercepts within their range widened by itself on both sides.
    """
    device = one.device(past)
    for key, told in values(one):
        known = past.baseline(device, key)
        if sum(known.values()) < _FEWEST or told in known:
            continue
        if (
            key in CODES
            or (key in _FIXED and _few(known))
            or not _near(key, float(told), [float(one) for one in known])
        ):
            usual = dict(sorted(known.items(), key=lambda one: -one[1])[:5])
            yield Hit(reason=f"{key} is one that this device never had", evidence={key: told, "usual": usual})


def _few(known: Mapping[str, int]) -> bool:
    return len(known) * _KINDS <= sum(known.values()) + _KINDS - 1


def _near(key: str, value: float, known: list[float]) -> bool:
    least, greatest = min(known), max(known)
    if key == "RescaleIntercept":
        return least - (greatest - least) <= value <= greatest + (greatest - least)
    return least / 2 <= value <= greatest * 2


RULES: tuple[Rule[Loaded], ...] = (
    Rule(
        name="device",
        catches="values that the device never had (rescale, pixel-spacing, photometric-flip, modality-swap)",
        look=_unusual,
    ),
)
