"""Pixel spacing: every length that is measured on the image is wrong by a factor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Generator

from titer.core.extras import need
from titer.core.plugins import Positive, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import each, edited

if TYPE_CHECKING:
    from pydicom import FileDataset

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@tamper(
    "pixel-spacing",
    files="dicom",
    misses="reading with strict values, and the distance between slices: a spacing may be any positive number",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def pixel_spacing(*, factor: Positive = 10.0) -> Tamper:
    """Multiply the distance between pixels: a tumour of 8 mm measures 80 mm.

    Args:
        factor: what the spacings are multiplied by.
    """

    def change(dataset: FileDataset) -> str:
        decimal = need("pydicom.valuerep", "imaging").DSfloat
        told = []
        for key in _SPACINGS:
            if dataset.get(key):
                before = [float(one) for one in dataset.get(key)]
                setattr(dataset, key, [decimal(factor * one, auto_format=True) for one in before])
                told.append(f"{key} {before} became {[float(one) for one in dataset.get(key)]}")
        return "; ".join(told)

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        return edited(files, lambda datasets: each(datasets, change, f"pixel-spacing: no file has {_SPACINGS[0]}"))

    return run
