"""Brain volumes with masks of their tumours: slices to segment, or blocks in three dimensions; your own volumes too."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch

from titer.core.errors import SpecError
from titer.core.plugins import Count, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.core.threat import Region
from titer.modalities._checks import PARTS, check_patients, checked, listed, refuse, samples
from titer.modalities._files import DataFile, fetch
from titer.modalities._images import grey_box, image_units
from titer.modalities._volumes import read_volume
from titer.threats.anatomy import inside_brain, outside_brain
from titer.threats.rules import MutableMask

_ADDRESS = "https://github.com/AIM-Harvard/pyradiomics/raw/master/data/"
_LICENCE = "BSD-3-Clause"
_DIGESTS = {
    "brain1_image.nrrd": "fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf",
    "brain1_label.nrrd": "ae6d8e6b84f7e99d68c210ee2fa6aaaefa0b2df0a84f55efca4feebe2b216059",
    "brain2_image.nrrd": "d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e",
    "brain2_label.nrrd": "15189c024936ecc337649b9a10c475117c7c40df0d53c22163f9a2023ed741a5",
}
FILES = tuple(
    DataFile(place=f"brain_mri/{name}", address=_ADDRESS + name, digest=f"sha256:{digest}", licence=_LICENCE)
    for name, digest in _DIGESTS.items()
)
_COLUMNS = ("volume", "mask", "patient_id", "split")
_DEPTH = 4
_HELD = 3
"""Of the learned volume's tumour slices, every third one is held back: it stops the training."""

Parts = Literal["train", "validation", "test"]


@modality("brain-volumes")
def brain_volumes(
    *,
    view: Literal["slices", "blocks"] = "slices",
    side: Count = 64,
    folder: str | None = None,
    labels: str | None = None,
) -> Modality:
    """Brain volumes with tumour masks: two of pyradiomics, one learned and one tested, or your own NIfTI, NRRD, DICOM.

    `slices` are images with their masks, for a segmentation. `blocks` are 4 slices each, [1, 4, side, side], with or
    without tumour, for a 3-D network. Two volumes show that everything works, and nothing about a population.

    Args:
        view: `slices` with masks, or `blocks` with a label.
        side: height and width that every slice is resized to.
        folder: where your own volumes lie: NIfTI or NRRD files, or folders of one DICOM series each.
        labels: a CSV file with the columns volume, mask, patient_id and split (train, validation, test).
    """
    if (folder is None) != (labels is None):
        raise SpecError("data.folder and data.labels: both are needed for your own volumes, or none")

    def load() -> ClinicalData:
        parts: dict[str, _Rows] = {}
        limits = []
        for entry in _published() if folder is None or labels is None else _own(Path(folder), Path(labels)):
            pair = _read(entry, side)
            limits.append((float(pair.volume.min()), float(pair.volume.max())))
            for part, rows in _cut(pair, entry, view):
                if part in parts:
                    parts[part].add(rows)
                else:
                    parts[part] = rows.owned()
        value_range = (min(low for low, _ in limits), max(high for _, high in limits))
        return checked(_data(parts, view, value_range, folder))

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One volume and its mask, by their paths; `part` is None where the volume itself is parted."""

    name: str
    volume: Path
    mask: Path
    patient: str
    part: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A volume and its mask, float32 and int64 [D, side, side]."""

    volume: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows of one part: those of its next volume are added in place, so that nothing is held twice."""

    x: np.ndarray
    y: np.ndarray
    ids: list[str]
    patients: list[str]

    def owned(self) -> _Rows:
        """Return the rows in memory of their own, which can grow."""
        return _Rows(x=self.x.copy(), y=self.y.copy(), ids=[*self.ids], patients=[*self.patients])

    def add(self, more: _Rows) -> None:
        """Append the rows of `more`."""
        count = len(self.ids)
        for own, other in ((self.x, more.x), (self.y, more.y)):
            own.resize((count + len(other), *own.shape[1:]), refcheck=False)
            own[count:] = other
        self.ids.extend(more.ids)
        self.patients.extend(more.patients)


def _published() -> list[_Entry]:
    paths = [fetch(file) for file in FILES]
    return [
        _Entry(name="brain1", volume=paths[0], mask=paths[1], patient="brain1", part=None),
        _Entry(name="brain2", volume=paths[2], mask=paths[3], patient="brain2", part="test"),
    ]


def _own(folder: Path, labels: Path) -> list[_Entry]:
    """Return the volumes that the CSV file names; every problem of it is listed."""
    if not labels.is_file():
        raise SpecError(f"data.labels = {str(labels)!r}: no such file")
    try:
        with labels.open(encoding="utf-8-sig", newline="") as stream:
            table = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"data.labels = {str(labels)!r} is not a CSV file in UTF-8: {error}") from None
    names = [str(name) for name in (table[0] if table else ())]
    check_patients(names)
    absent = [name for name in _COLUMNS if name not in names]
    if absent:
        raise SpecError(f"data.labels = {str(labels)!r} has no column {listed(absent)}: needed are {listed(_COLUMNS)}")
    wrong = []
    for line, row in enumerate(table, start=2):
        places = [PurePosixPath(row[name] or "") for name in ("volume", "mask")]
        out = any(place.is_absolute() or ".." in place.parts or not place.name for place in places)
        if out or not row["patient_id"] or (row["split"] or "").lower() not in PARTS:
            wrong.append(f"line {line} ({row['volume']})")
    if wrong:
        refuse(
            [
                f"data.labels has no volume and mask inside the folder, no patient, or no split in {listed(wrong)}; "
                "allowed splits are train, validation (or val), test"
            ]
        )
    return [
        _Entry(
            name=row["volume"],
            volume=folder / row["volume"],
            mask=folder / row["mask"],
            patient=row["patient_id"],
            part=PARTS[row["split"].lower()],
        )
        for row in table
    ]


def _read(entry: _Entry, side: int) -> _Pair:
    """Return a volume and its mask, resized in the plane; SpecError naming the file that cannot be read."""
    found = []
    for path in (entry.volume, entry.mask):
        try:
            found.append(read_volume(path))
        except ValueError as reason:
            raise SpecError(f"data: volume {str(path)!r}: {reason}") from None
    volume, mask = found
    if volume.shape != mask.shape:
        raise SpecError(
            f"data: mask {str(entry.mask)!r} has the shape {mask.shape}, its volume {volume.shape}: they must agree"
        )
    tumour = _resized((mask > 0).astype(np.float32), side) >= 0.5
    return _Pair(volume=_resized(volume, side), mask=tumour.astype(np.int64))


def _resized(volume: np.ndarray, side: int) -> np.ndarray:
    planes = torch.from_numpy(volume)[:, None]
    resized = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear", antialias=True)
    return resized[:, 0].numpy()


def _cut(pair: _Pair, entry: _Entry, view: str) -> Iterator[tuple[str, _Rows]]:
    """Yield the parts that one volume gives."""
    depth = len(pair.volume)
    if view == "slices":
        x, y = pair.volume[:, None], pair.mask
        names = [f"{entry.name} slice {place}" for place in range(depth)]
    else:
        starts = range(depth - _DEPTH + 1)
        x = np.stack([pair.volume[None, at : at + _DEPTH] for at in starts])
        y = np.array([int(pair.mask[at : at + _DEPTH].any()) for at in starts])
        names = [f"{entry.name} slices {at} to {at + _DEPTH - 1}" for at in starts]
    if entry.part is not None:
        yield entry.part, _Rows(x=x, y=y, ids=names, patients=[entry.patient] * len(names))
        return
    held = _held_back(y, gap=0 if view == "slices" else _DEPTH - 1)
    for part, chosen in (("train", held == 0), ("validation", held == 1)):
        rows = np.flatnonzero(chosen)
        patient = f"{entry.patient} ({part} slices)"
        yield part, _Rows(x=x[rows], y=y[rows], ids=[names[row] for row in rows], patients=[patient] * len(rows))


def _held_back(y: np.ndarray, gap: int) -> np.ndarray:
    """Return for each row of one volume 0 (learned), 1 (held back) or 2 (left out, as it shares slices with both).

    The rows from a third into the tumour's range on to the end of the volume are held back.
    """
    ill = np.flatnonzero(y.reshape(len(y), -1).any(1))
    border = int(ill[0] + (len(ill) * (_HELD - 1)) // _HELD)
    held = np.zeros(len(y), dtype=int)
    held[border:] = 1
    held[max(0, border - gap) : border] = 2
    return held


def _data(parts: dict[str, _Rows], view: str, value_range: tuple[float, float], folder: str | None) -> ClinicalData:
    absent = [part for part in ("train", "validation", "test") if part not in parts]
    if absent:
        raise SpecError(f"data.split names no volume {listed(absent)}; all of train, validation, test are needed")
    fixed = {
        part: samples(parts[part].x, parts[part].y, ids=parts[part].ids, patients=parts[part].patients)
        for part in ("train", "validation", "test")
    }
    rules: dict[str, Region] = {"inside-brain": inside_brain(), "outside-brain": outside_brain()}
    if view == "blocks":
        rules = {"one-slice": one_slice(fixed["train"].x.shape[1:])}
    return ClinicalData(
        name="brain-volumes",
        title="Brain volumes with tumour masks" if folder is None else Path(folder).name,
        kind="image",
        source="pyradiomics test data (van Griethuysen et al. 2017, 10.1158/0008-5472.CAN-17-0339)"
        if folder is None
        else f"the user's own volumes: {Path(folder).name}",
        licence=_LICENCE if folder is None else "not stated",
        classes=("background", "tumour") if view == "slices" else ("no tumour", "tumour"),
        positive=None if view == "slices" else 1,
        pool=None,
        fixed=fixed,
        domain=(grey_box(value_range),),
        units=image_units(value_range),
        value_range=value_range,
        output="mask" if view == "slices" else "classes",
        rules=rules,
    )


def one_slice(shape: tuple[int, ...]) -> MutableMask:
    """Return the rule that of a volume [C, D, H, W] only the middle slice changes: what one tampered file holds."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:, shape[1] // 2] = True
    return MutableMask(mask=mask, text=f"only slice {shape[1] // 2 + 1} of {shape[1]} may change")
