"""Laterality flip: the left becomes the right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Generator

from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import each, edited

if TYPE_CHECKING:
    from pydicom import FileDataset

_SIDES = ("Laterality", "ImageLaterality", "FrameLaterality")
_OTHER = str.maketrans("LR", "RL")


@tamper(
    "laterality-flip",
    files="dicom",
    misses="reading with strict values: L and R are both allowed, and no reader looks for the heart",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def laterality_flip() -> Tamper:
    """Exchange left and right in Laterality, ImageLaterality, FrameLaterality and PatientOrientation."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        reason = "laterality-flip: no file says left or right (Laterality, ImageLaterality, PatientOrientation)"
        return edited(files, lambda datasets: each(datasets, _flip, reason))

    return run


def _flip(dataset: FileDataset) -> str:
    told = []
    for key in _SIDES:
        side = str(dataset.get(key) or "")
        if side in ("L", "R"):
            setattr(dataset, key, side.translate(_OTHER))
            told.append(f"{key} {side!r} became {side.translate(_OTHER)!r}")
    directions = dataset.get("PatientOrientation")
    before = [str(one) for one in directions] if directions and not isinstance(directions, str) else []
    after = [one.translate(_OTHER) for one in before]
    if after != before:
        dataset.PatientOrientation = after
        told.append(f"PatientOrientation {before} became {after}")
    return "; ".join(told)
