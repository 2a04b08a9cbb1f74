"""Photometric flip: what was white is shown, and read by models, as black."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Generator

from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import each, edited

if TYPE_CHECKING:
    from pydicom import FileDataset

_OTHER = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}


@tamper(
    "photometric-flip",
    files="dicom",
    misses="reading with strict values, and a digest of the pixels: both interpretations are allowed, no pixel changes",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def photometric_flip() -> Tamper:
    """Exchange MONOCHROME1 and MONOCHROME2: grey levels are inverted, no pixel is touched."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        return edited(files, lambda datasets: each(datasets, _flip, "photometric-flip: no file is of grey levels"))

    return run


def _flip(dataset: FileDataset) -> str:
    before = str(dataset.get("PhotometricInterpretation") or "")
    if before not in _OTHER:
        return ""
    dataset.PhotometricInterpretation = _OTHER[before]
    return f"PhotometricInterpretation {before!r} became {_OTHER[before]!r}"
