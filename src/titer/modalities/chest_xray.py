"""Chest X-rays of children: PneumoniaMNIST, 28 x 28 grey levels."""

from __future__ import annotations

from dataclasses import replace

from titer.core.errors import SpecError
from titer.core.plugins import Count, make_modality, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._pneumonia import FILE, pneumonia
from titer.threats.anatomy import edges

FILES = (FILE,)


@modality("chest-xray")
def chest_xray(
    *, folder: str | None = None, labels: str | None = None, size: tuple[Count, Count] | None = None
) -> Modality:
    """Paediatric chest X-rays (PneumoniaMNIST): normal or pneumonia, with the data set's own test part.

    With `folder` and `labels` your own ones, DICOM or other image files, as `image-folder` reads them.

    Args:
        folder: where your own images lie; a plan takes it from its own folder.
        labels: their CSV file, one row an image.
        size: height and width that your own images are resized to.
    """
    if (folder is None) != (labels is None):
        raise SpecError("data.folder and data.labels: both are needed for your own images, or none")
    if folder is None and size is not None:
        raise SpecError("data.size is not allowed without data.folder: PneumoniaMNIST has 28 x 28 pixels")
    own = {"name": "image-folder", "folder": folder, "labels": labels, **({"size": size} if size else {})}

    def load() -> ClinicalData:
        if folder is None:
            title = "Paediatric chest X-rays (PneumoniaMNIST)"
            data = pneumonia("chest-xray", title, ("normal", "pneumonia"))
        else:
            data = replace(make_modality(own)(), name="chest-xray")
        return replace(data, rules={"bones-and-edges": edges()})

    return load
