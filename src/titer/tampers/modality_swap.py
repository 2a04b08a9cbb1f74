"""Modality swap: an image says that another kind of machine made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import Generator

from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._dicom import each, edited

if TYPE_CHECKING:
    from pydicom import FileDataset


@tamper(
    "modality-swap",
    files="dicom",
    misses="reading with strict values: the code is a defined one, and readers do not compare it with the SOP class",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def modality_swap(*, modality: Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")] = "CT", other: str = "MR") -> Tamper:
    """Replace the modality: models and hanging protocols are chosen by it.

    Args:
        modality: the code that files get.
        other: the code that files get which have `modality` already.
    """

    def change(dataset: FileDataset) -> str:
        before = str(dataset.get("Modality") or "")
        if not before:
            return ""
        dataset.Modality = modality if before != modality else other
        return f"Modality {before!r} became {dataset.Modality!r}"

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        return edited(files, lambda datasets: each(datasets, change, "modality-swap: no file has a Modality"))

    return run
