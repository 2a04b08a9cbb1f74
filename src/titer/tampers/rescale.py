"""Rescale: stored values mean other Hounsfield units, or other activity, than the machine measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import Generator

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.core.plugins import Positive, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import each, edited

if TYPE_CHECKING:
    from pydicom import FileDataset


@tamper(
    "rescale",
    files="dicom",
    misses="reading with strict values, and a digest of the pixels: the stored values stay, and any line may map them",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def rescale(*, slope: Positive = 1.0, intercept: Annotated[float, Field(allow_inf_nan=False)] = 200.0) -> Tamper:
    """Change the line that maps stored values to units: water at 200 HU.

    Args:
        slope: what RescaleSlope is multiplied by.
        intercept: what is added to RescaleIntercept.
    """
    if slope == 1.0 and intercept == 0.0:
        raise SpecError("rescale.slope = 1 with rescale.intercept = 0 changes nothing: give another slope or intercept")

    def change(dataset: FileDataset) -> str:
        decimal = need("pydicom.valuerep", "imaging").DSfloat
        if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
            return ""
        told = []
        for key, new in (
            ("RescaleSlope", slope * float(dataset.RescaleSlope)),
            ("RescaleIntercept", intercept + float(dataset.RescaleIntercept)),
        ):
            before = float(dataset.get(key))
            if new != before:
                setattr(dataset, key, decimal(new, auto_format=True))
                told.append(f"{key} {before:g} became {float(dataset.get(key)):g}")
        return "; ".join(told)

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        reason = "rescale: no file has RescaleSlope and RescaleIntercept"
        return edited(files, lambda datasets: each(datasets, change, reason))

    return run
