"""Chest X-rays of children: PneumoniaMNIST, 28 x 28 grey levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from titer.core.errors import SpecError
from titer.core.plugins import modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._checks import checked, samples
from titer.modalities._files import DataFile, fetch
from titer.modalities._images import RANGES, grey_box, image_units

FILES = (
    DataFile(
        place="chest_xray/pneumoniamnist_28.npz",
        address="https://zenodo.org/records/10519652/files/pneumoniamnist.npz",
        digest="md5:28209eda62fecd6e6a2d98b1501bb15f",
        licence="CC BY 4.0",
    ),
)
_RANGE = RANGES["uint8"]
_PARTS = {"train": "train", "val": "validation", "test": "test"}


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
                source="Kermany et al. 2018, 10.17632/rscbjbr9sj; "
                "Yang et al. 2023 (MedMNIST v2), 10.1038/s41597-022-01721-8",
                licence="CC BY 4.0",
                classes=("normal", "pneumonia"),
                positive=1,
                pool=None,
                fixed=_parts(path),
                domain=(grey_box(_RANGE),),
                units=image_units(_RANGE),
                value_range=_RANGE,
                default_network="small-cnn",
            )
        )

    return load


def _parts(path: Path) -> dict[str, Samples]:
    """Return the three parts of the file; the release names no patients, so each image is its own."""
    parts = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for short, name in _PARTS.items():
                images, labels = file[f"{short}_images"], file[f"{short}_labels"].reshape(-1)
                ids = [f"{short}-{i:04d}" for i in range(len(images))]
                parts[name] = samples(images[:, None], labels, ids=ids, patients=ids)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise SpecError(
            f"data file {str(path)!r} is not a PneumoniaMNIST .npz ({str(error).splitlines()[0][:80]}): allowed are "
            "arrays train_images, train_labels, val_images, val_labels, test_images, test_labels"
        ) from None
    return parts
