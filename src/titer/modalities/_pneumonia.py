"""PneumoniaMNIST: two modalities read it and ask it different questions."""

from __future__ import annotations

from pathlib import Path

from titer.core.errors import SpecError
from titer.core.record import ClinicalData, Samples
from titer.modalities._checks import checked, samples
from titer.modalities._files import DataFile, fetch, read_npz
from titer.modalities._images import RANGES, grey_box, image_units

FILE = DataFile(
    place="chest_xray/pneumoniamnist_28.npz",
    address="https://zenodo.org/records/10519652/files/pneumoniamnist.npz",
    digest="md5:28209eda62fecd6e6a2d98b1501bb15f",
    licence="CC BY 4.0",
)
SOURCE = "Kermany et al. 2018, 10.17632/rscbjbr9sj; Yang et al. 2023 (MedMNIST v2), 10.1038/s41597-022-01721-8"
RANGE = RANGES["uint8"]
_SHAPE = (28, 28)
_PARTS = {"train": "train", "val": "validation", "test": "test"}


def pneumonia(name: str, title: str, classes: tuple[str, str]) -> ClinicalData:
    """Return the published data with its own test part; `classes` are what no pneumonia and pneumonia are called."""
    return checked(
        ClinicalData(
            name=name,
            title=title,
            kind="image",
            source=SOURCE,
            licence=FILE.licence,
            classes=classes,
            positive=1,
            pool=None,
            fixed=_parts_of(fetch(FILE)),
            domain=(grey_box(RANGE),),
            units=image_units(RANGE),
            value_range=RANGE,
        )
    )


def _parts_of(path: Path) -> dict[str, Samples]:
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
