"""MR slices of the head: glioma, meningioma, pituitary tumour, or none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

import numpy as np

from titer.core.errors import SpecError
from titer.core.plugins import Count, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._archives import read_archive
from titer.modalities._checks import checked, listed, refuse, samples
from titer.modalities._files import DataFile, fetch
from titer.modalities._images import RANGES, grey_box, image_units
from titer.modalities._twins import twins
from titer.threats.anatomy import inside_brain, outside_brain

_ADDRESS = "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset"
_LICENCE = "CC0 as published; some upstream sources unclear"
INDEX = DataFile(
    place="brain_mri/brain_tumor_4class_index.csv",
    address=_ADDRESS,
    digest="sha256:e6301b0cc8e6b06ec27401018aba206b49e58b16258cfc472e1b61b021afa5ad",
    licence=_LICENCE,
)
ARCHIVE = DataFile(
    place="brain_mri/brain_tumor_4class_224.zip",
    address=_ADDRESS,
    digest="sha256:9e14cf8e2ea9f67664be559650849dc36b38b02c6ce4bd3c4d2d5d81780829dd",
    licence=_LICENCE,
)
FILES = (INDEX, ARCHIVE)
_LABELS = ("notumor", "glioma", "meningioma", "pituitary")
CLASSES = ("no tumour", *_LABELS[1:])
_PARTS = ("Training", "Testing")
_ALIKE = 0.99
"""Above it, two thumbnails show the same slice, stored twice or next to it: no such pair has two labels."""

_EVERY = 6
_RANGE = RANGES["uint8"]


@modality("brain-mri")
def brain_mri(
    *,
    parts: Literal["drawn", "official"] = "drawn",
    side: Count = 64,
    test_share: Share = 0.2,
    validation_share: Share = 0.1,
) -> Modality:
    """MR slices of the head in four classes: no tumour, glioma, meningioma, pituitary tumour.

    The release names no patients, and holds many slices twice: near-duplicates count as one patient, so that none of
    them stands in two parts. Those without tumour come from another source than the tumours.

    Args:
        parts: `drawn` anew in each trial from all slices, or the `official` Training and Testing, without the slices
            of Training that have a near-duplicate in Testing.
        side: height and width that every slice is resized to.
        test_share: share of the patients tested in each trial, where parts are drawn.
        validation_share: share of the others that stops training early, where parts are drawn.
    """

    def load() -> ClinicalData:
        names, labels, named = _read_index(fetch(INDEX))
        x = read_archive(fetch(ARCHIVE), names, channels=1, side=side)
        y = np.array([_LABELS.index(label) for label in labels])
        rows = samples(x, y, ids=names, patients=[f"slices like {group}" for group in twins(x, _ALIKE)])
        return checked(
            ClinicalData(
                name="brain-mri",
                title="MR slices of the head, four classes",
                kind="image",
                source="Brain Tumor MRI Dataset (Nickparvar 2021, 10.34740/KAGGLE/DSV/2645886), a part of it",
                licence=_LICENCE,
                classes=CLASSES,
                positive=None,
                pool=rows if parts == "drawn" else None,
                fixed={} if parts == "drawn" else _official(rows, np.array(named)),
                domain=(grey_box(_RANGE),),
                units=image_units(_RANGE),
                value_range=_RANGE,
                test_share=test_share,
                validation_share=validation_share,
                rules={"inside-brain": inside_brain(), "outside-brain": outside_brain()},
            )
        )

    return load


def _read_index(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Return file, label and part of each slice."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"data file {str(path)!r} is not a CSV file in UTF-8: {error}") from None
    absent = [name for name in ("file", "split", "label") if not table or name not in table[0]]
    if absent:
        raise SpecError(f"data file {str(path)!r} is not the index of the slices: it has no column {listed(absent)}")
    wrong = [
        f"line {line} ({row['file']})"
        for line, row in enumerate(table, start=2)
        if row["label"] not in _LABELS or row["split"] not in _PARTS
    ]
    if wrong:
        allowed = f"allowed are {', '.join(_LABELS)} and {', '.join(_PARTS)}"
        refuse([f"data file {str(path)!r} has another class or part in {listed(wrong)}; {allowed}"])
    return [row["file"] for row in table], [row["label"] for row in table], [row["split"] for row in table]


def _official(rows: Samples, named: np.ndarray) -> dict[str, Samples]:
    """Return the official parts; slices of Training like one of Testing are left out, a sixth of the rest validates."""
    groups = np.array(rows.patients)
    tested = set(groups[named == "Testing"].tolist())
    learned = [int(row) for row in np.flatnonzero(named == "Training") if groups[row] not in tested]
    place = {group: i for i, group in enumerate(dict.fromkeys(groups[learned].tolist()))}
    held = [place[groups[row]] % _EVERY == _EVERY - 1 for row in learned]
    return {
        "train": rows.take([row for row, out in zip(learned, held, strict=True) if not out]),
        "validation": rows.take([row for row, out in zip(learned, held, strict=True) if out]),
        "test": rows.take(np.flatnonzero(named == "Testing")),
    }
