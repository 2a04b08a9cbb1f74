"""Your own images: a folder of image files and a CSV file that says what each one is."""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd

from titer.core.errors import SpecError, nearest
from titer.core.plugins import Count, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._checks import (
    check_classes,
    check_patient_values,
    check_patients,
    checked,
    class_names,
    class_numbers,
    divided,
    listed,
    part_names,
    positive_class,
    refuse,
    samples,
)
from titer.modalities._images import Picture, grey_box, image_units, read_picture
from titer.modalities._twins import same_content

_ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"}


@modality("image-folder")
def image_folder(
    *,
    folder: str,
    labels: str,
    classes: tuple[str, ...] | None = None,
    positive: str | None = None,
    image_column: str = "image",
    label_column: str = "label",
    size: tuple[Count, Count] | None = None,
    channels: Literal[1, 3] = 1,
    test_share: Share = 0.3,
    validation_share: Share = 0.15,
    title: str = "",
    licence: str = "",
) -> Modality:
    """Your own images: a folder of PNG, JPEG, TIFF, BMP or DICOM files and a CSV file of their labels.

    The CSV may also have `patient_id` (without it, each image is a patient of its own), `sex`, `age`, `site`, and
    `split` (train, validation, test), which fixes the parts. Values are raw grey levels: 0 to 255, 0 to 65535, or what
    a DICOM file stores, after its rescale.

    Args:
        folder: where the images lie; a plan takes it from its own folder.
        labels: the CSV file, one row an image.
        classes: names of the classes in order; by default the sorted labels, or 0 to the largest.
        positive: the class that is the finding; by default the last of two.
        image_column: column of the file names; the ending may be left out.
        label_column: column of the classes: names, or indices from 0.
        size: height and width that every image is resized to; by default all must have one size.
        channels: 1 for grey levels, 3 for colour.
        test_share: share of the patients tested in each trial, where no `split` fixes it.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    check_classes(classes, positive)

    def load() -> ClinicalData:
        table = _read_table(Path(labels), image_column, label_column)
        names = classes or class_names(table.labels)
        rows, parts, value_range = _read_rows(Path(folder), table, names, channels, size)
        pool, fixed = divided(rows, parts)
        return checked(
            ClinicalData(
                name="image-folder",
                title=title or Path(folder).name,
                kind="image",
                source=f"the user's own images: {Path(folder).name}, {Path(labels).name}",
                licence=licence or "not stated",
                classes=names,
                positive=positive_class(positive, names),
                pool=pool,
                fixed=fixed,
                domain=(grey_box(value_range),),
                units=image_units(value_range),
                value_range=value_range,
                test_share=test_share,
                validation_share=validation_share,
            )
        )

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The CSV file as text: N images with their labels and patients, all columns, and each row's name in messages."""

    images: list[str]
    labels: list[str]
    patients: list[str]
    columns: dict[str, list[str]]
    rows: list[str]


def _read_rows(
    folder: Path, table: _Table, classes: tuple[str, ...], channels: int, size: tuple[int, int] | None
) -> tuple[Samples, list[str] | None, tuple[float, float]]:
    """Return the samples, the part of each where a `split` column names it, and the range of the grey levels."""
    numbers, problems = class_numbers(table.labels, classes, table.rows)
    problems += check_patient_values(table.patients, table.rows)
    parts = None
    if "split" in table.columns:
        parts, wrong = part_names(table.columns["split"], table.rows)
        problems += wrong
    pictures, wrong = _read_pictures(folder, table, channels, size)
    refuse([*problems, *wrong])
    assert pictures.x is not None
    assert pictures.value_range is not None
    refuse(same_content(pictures.x, table.images, table.patients))
    rows = samples(pictures.x, numbers, ids=table.images, patients=table.patients, columns=table.columns)
    return rows, parts, pictures.value_range


def _read_table(path: Path, image_column: str, label_column: str) -> _Table:
    frame = _read_csv(path)
    columns = {str(name).strip(): frame[name].str.strip().tolist() for name in frame.columns}
    for setting, name in (("image_column", image_column), ("label_column", label_column)):
        if name not in columns:
            raise SpecError(
                f"data.{setting} = {name!r} is not a column of {str(path)!r}: its columns are "
                f"{listed(list(columns))}{nearest(name, columns)}"
            )
    check_patients(list(columns))
    images = columns[image_column]
    if not images:
        raise SpecError(f"data.labels = {str(path)!r} holds no rows: one row an image is needed")
    return _Table(
        images=images,
        labels=columns[label_column],
        patients=columns.get("patient_id", images),
        columns=columns,
        rows=[f"line {i} ({name})" for i, name in enumerate(images, start=2)],
    )


def _read_csv(path: Path) -> pd.DataFrame:
    """Return the CSV file, every value as text."""
    if not path.is_file():
        raise SpecError(f"data.labels = {str(path)!r}: no such file")
    try:
        with warnings.catch_warnings():
            # A row with too many values is a warning to pandas, which then drops some of them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise SpecError(f"data.labels = {str(path)!r} is not a CSV file in UTF-8 with a header: {reason}") from None
    return frame.fillna("")


@dataclass(slots=True, kw_only=True)
class _Finder:
    """Finds the files of a folder by name, with or without the ending; each directory is listed once."""

    folder: Path
    _stems: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def find(self, name: str) -> Path:
        """Return the file; ValueError with the reason where there is none, or more than one."""
        place = PurePosixPath(name)
        if not name:
            raise ValueError("no name")
        if place.is_absolute() or ".." in place.parts:
            raise ValueError("leads out of the folder")
        path = self.folder / place
        if path.is_file():
            return path
        found = self._listed(path.parent).get(path.name, [])
        if len(found) != 1:
            names = " or ".join(one.name for one in found)
            raise ValueError(f"could be {names}" if found else "no such file")
        return found[0]

    def _listed(self, directory: Path) -> dict[str, list[Path]]:
        if directory not in self._stems:
            stems: dict[str, list[Path]] = defaultdict(list)
            for path in sorted(directory.iterdir()) if directory.is_dir() else ():
                if path.suffix.lower() in _ENDINGS:
                    stems[path.stem].append(path)
            self._stems[directory] = stems
        return self._stems[directory]


@dataclass(slots=True, kw_only=True)
class _Pictures:
    """Images as they are read: `x` float32[rows, channels, H, W] is filled one by one, so that nothing is held twice.

    What differs from the first image in size has no place in it, and is named by `odd`.
    """

    rows: int
    x: np.ndarray | None = None
    value_range: tuple[float, float] | None = None
    depths: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, one: Picture) -> None:
        """Take in the next image."""
        if self.x is None:
            self.x = np.empty((self.rows, *one.pixels.shape), dtype=np.float32)
            self.value_range = one.value_range
        if one.pixels.shape == self.x.shape[1:]:
            self.x[len(self.sizes)] = one.pixels
        self.depths[name] = sys.intern(one.depth)
        self.sizes[name] = sys.intern(f"{one.pixels.shape[1]} x {one.pixels.shape[2]}")

    def odd(self) -> list[str]:
        """Return what is wrong where images differ in depth or size: which ones differ from most."""
        problems = []
        for what, hint, kinds in (
            ("bits", "allowed is one depth", self.depths),
            ("size", "set size = [H, W]", self.sizes),
        ):
            if len(set(kinds.values())) > 1:
                usual = Counter(kinds.values()).most_common(1)[0][0]
                odd = [f"{name} is {kind}" for name, kind in kinds.items() if kind != usual]
                few = f"{len(odd)} of {len(kinds)} images are not {usual}"
                problems.append(f"data.{what}: {few}: {listed(odd)}; {hint}")
        return problems


def _read_pictures(
    folder: Path, table: _Table, channels: int, size: tuple[int, int] | None
) -> tuple[_Pictures, list[str]]:
    """Return every image that can be read, and what is wrong with them."""
    if not folder.is_dir():
        raise SpecError(f"data.folder = {str(folder)!r}: no such directory")
    finder = _Finder(folder=folder)
    lines: dict[Path, list[int]] = defaultdict(list)
    pictures = _Pictures(rows=len(table.images))
    broken = []
    for line, name in enumerate(table.images, start=2):
        try:
            path = finder.find(name)
            lines[path].append(line)
            if len(lines[path]) == 1:
                pictures.add(name, read_picture(path, channels, size))
        except ValueError as reason:
            broken.append(f"{name} ({reason})")
    problems = pictures.odd()
    if broken:
        total = f"{len(broken)} of {len(table.images)} images cannot be read"
        problems.append(f"data.folder = {str(folder)!r}: {total}: {listed(broken)}")
    twice = [f"{path.name} in lines {', '.join(map(str, at))}" for path, at in lines.items() if len(at) > 1]
    if twice:
        problems.append(f"data.labels names images twice: {listed(twice)}; allowed is one row an image")
    return pictures, problems
