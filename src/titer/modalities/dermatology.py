"""Dermoscopic images of skin lesions: ISIC 2017, with the patients' age and sex where they are known."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from titer.core.errors import SpecError
from titer.core.plugins import Count, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._archives import read_archive
from titer.modalities._checks import checked, listed, refuse, samples
from titer.modalities._files import DataFile, fetch
from titer.modalities._images import RANGES, grey_box, image_units
from titer.threats.rules import MutableMask

_ADDRESS = "https://challenge.isic-archive.com/data/#2017"
_PARTS = {"train": "train", "val": "validation", "test": "test"}
LABELS = DataFile(
    place="dermatology/isic2017_labels.csv",
    address=_ADDRESS,
    digest="sha256:6915073089c3909cf26ea1e91d371fd563c9099e02bb0c2635f8a697a31c46a8",
    licence="CC0",
)
ARCHIVES = {
    "train": DataFile(
        place="dermatology/isic2017_256px_train.zip",
        address=_ADDRESS,
        digest="sha256:3bdbe4e32748f47c5daf3a116782be9090e7b5f1f4a0e0c45212f5c91f3b8e63",
        licence="CC0",
    ),
    "val": DataFile(
        place="dermatology/isic2017_256px_val.zip",
        address=_ADDRESS,
        digest="sha256:7701e303ca7930e1b386b7bd7253bf726f1ed12cc82ed482b487e0971d2682b7",
        licence="CC0",
    ),
    "test": DataFile(
        place="dermatology/isic2017_256px_test.zip",
        address=_ADDRESS,
        digest="sha256:7562cfdaea71e2ad47244ba5213b806a706c28de8f8f458699ce547190b88bd0",
        licence="CC0",
    ),
}
FILES = (LABELS, *ARCHIVES.values())

_CLASSES = {
    "melanoma": ("no melanoma", "melanoma"),
    "three classes": ("nevus", "seborrheic keratosis", "melanoma"),
}
_COLUMNS = ("image_id", "melanoma", "class3", "age_approximate", "sex", "split")
_AGED = ("train", "val")
"""Parts whose images have an age and a sex."""

_RANGE = RANGES["uint8"]

Row = dict[str, str]


@modality("dermatology")
def dermatology(
    *,
    task: Literal["melanoma", "three classes"] = "melanoma",
    side: Count = 64,
    parts: Literal["official", "drawn"] = "official",
    test_share: Share = 0.3,
    validation_share: Share = 0.1,
) -> Modality:
    """Dermoscopic images (ISIC 2017) with age and sex, where they are known.

    Both are missing for the whole official test part, and for about 12 % of the training part: they are `unknown`
    there. The release names no patients, so that each image is a patient of its own.

    Args:
        task: `melanoma` against everything else, or nevus, seborrheic keratosis and melanoma.
        side: height and width that every image is resized to.
        parts: the `official` ones; or `drawn` anew in each trial from the official training and validation parts, so
            that the tested images have an age and a sex.
        test_share: share of the images tested in each trial, where parts are drawn.
        validation_share: share of the others that stops training early, where parts are drawn.
    """

    def load() -> ClinicalData:
        rows = _read_labels(fetch(LABELS))
        classes = _CLASSES[task]
        return checked(
            ClinicalData(
                name="dermatology",
                title="Dermoscopic images (ISIC 2017)",
                kind="image",
                source="Codella et al. 2018, arXiv:1710.05006 (ISIC 2017 challenge), reduced to 256 pixels",
                licence="CC0",
                classes=classes,
                positive=classes.index("melanoma"),
                pool=_part(rows, _AGED, classes, side) if parts == "drawn" else None,
                fixed={} if parts == "drawn" else _official(rows, classes, side),
                domain=(grey_box(_RANGE),),
                units=image_units(_RANGE),
                value_range=_RANGE,
                test_share=test_share,
                validation_share=validation_share,
                rules={"corner": corner(side)},
            )
        )

    return load


def _read_labels(path: Path) -> dict[str, list[Row]]:
    """Return the rows of the CSV file by part."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"data file {str(path)!r} is not a CSV file in UTF-8: {error}") from None
    absent = [name for name in _COLUMNS if not table or name not in table[0]]
    if absent:
        raise SpecError(f"data file {str(path)!r} is not the table of ISIC 2017: it has no column {listed(absent)}")
    problems = []
    parts: dict[str, list[Row]] = defaultdict(list)
    for line, row in enumerate(table, start=2):
        label = (row["melanoma"] or "").strip()
        if row["split"] not in _PARTS or label not in ("0", "1") or _class3(row) not in _CLASSES["three classes"]:
            problems.append(f"line {line} ({row['image_id']})")
        parts[row["split"]].append(row)
    if problems:
        refuse([f"data file {str(path)!r} has no part or label of ISIC 2017 in {listed(problems)}"])
    return parts


def _class3(row: Row) -> str:
    return (row["class3"] or "").strip().replace("_", " ")


def _part(rows: dict[str, list[Row]], splits: Sequence[str], classes: tuple[str, ...], side: int) -> Samples:
    """Return one part or several ones joined, the images of each read from its own archive."""
    own = [row for split in splits for row in rows[split]]
    x = np.empty((len(own), 3, side, side), dtype=np.float32)
    filled = 0
    for split in splits:
        names = [f"{row['image_id']}.jpg" for row in rows[split]]
        x[filled : filled + len(names)] = read_archive(fetch(ARCHIVES[split]), names, channels=3, side=side)
        filled += len(names)
    ids = [row["image_id"] for row in own]
    labels = [row["melanoma"] if len(classes) == 2 else str(classes.index(_class3(row))) for row in own]
    columns = {"sex": [row["sex"] for row in own], "age": [row["age_approximate"] for row in own]}
    return samples(x, np.array(labels, dtype=np.int64), ids=ids, patients=ids, columns=columns)


def _official(rows: dict[str, list[Row]], classes: tuple[str, ...], side: int) -> dict[str, Samples]:
    return {part: _part(rows, [split], classes, side) for split, part in _PARTS.items()}


def corner(side: int) -> MutableMask:
    """Return the rule that only the left upper third of the sides changes: ink or a marker beside the lesion."""
    mask = torch.zeros(3, side, side, dtype=torch.bool)
    mask[:, : side // 3, : side // 3] = True
    return MutableMask(mask=mask, text="only the left upper corner, a ninth of the picture, may change")
