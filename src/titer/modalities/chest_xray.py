"""Chest X-rays of children: PneumoniaMNIST, 28 x 28 grey levels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from titer.core.errors import SpecError
from titer.core.plugins import Count, make_modality, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._checks import checked, samples
from titer.modalities._files import DataFile, fetch, read_npz
from titer.modalities._images import RANGES, grey_box, image_units
from titer.threats.anatomy import edges

FILES = (
    DataFile(
        place="chest_xray/pneumoniamnist_28.npz",
        address="https://zenodo.org/records/10519652/files/pneumoniamnist.npz",
        digest="md5:28209eda62fecd6e6a2d98b1501bb15f",
        licence="CC BY 4.0",
    ),
)
_RANGE = RANGES["uint8"]
_SHAPE = (28, 28)
_PARTS = {"train": "train", "val": "validation", "test": "test"}


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
        data = _published() if folder is None else replace(make_modality(own)(), name="chest-xray")
        return replace(data, rules={"bones-and-edges": edges()})

    return load


def _published() -> ClinicalData:
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
        )
    )


def _parts(path: Path) -> dict[str, Samples]:
    """Return the three parts of the file; the release names no patients, so each image is its own."""
    content = read_npz(path, "data file")
    kinds = [(short, content.get(f"{short}_images"), content.get(f"{short}_labels")) for short in _PARTS]
    parts = {}
    for short, images, labels in kinds:
        if images is None or labels is None or images.shape[1:] != _SHAPE or labels.size != len(images):
            raise SpecError(
                f"data file {str(path)!r} is not PneumoniaMNIST: {short}_images [N, 28, 28] and {short}_labels [N] "
                "are needed"
            )
        ids = [f"{short}-{i:04d}" for i in range(len(images))]
        parts[_PARTS[short]] = samples(images[:, None], labels.reshape(-1), ids=ids, patients=ids)
    return parts
