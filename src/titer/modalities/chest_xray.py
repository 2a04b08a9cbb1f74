"""Chest X-rays of children: PneumoniaMNIST, 28 x 28 grey levels."""

from __future__ import annotations

from titer.core.plugins import modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._checks import checked
from titer.modalities._files import fetch
from titer.modalities._images import grey_box, image_units
from titer.modalities._pneumonia import FILE, RANGE, SOURCE, pneumonia_parts

FILES = (FILE,)


@modality("chest-xray")
def chest_xray() -> Modality:
    """Paediatric chest X-rays (PneumoniaMNIST): normal or pneumonia, with the data set's own test part."""

    def load() -> ClinicalData:
        path = fetch(FILES[0])
        return checked(
            ClinicalData(
                name="chest-xray",
                title="Paediatric chest X-rays (PneumoniaMNIST)",
                kind="image",
                source=SOURCE,
                licence="CC BY 4.0",
                classes=("normal", "pneumonia"),
                positive=1,
                pool=None,
                fixed=pneumonia_parts(path),
                domain=(grey_box(RANGE),),
                units=image_units(RANGE),
                value_range=RANGE,
            )
        )

    return load
