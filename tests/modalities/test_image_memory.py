"""Readers of images hold what they return and one file more: ten times as many files take no more beside it."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.modalities.dicom_files import dicom

from titer.core.plugins import make_modality
from titer.core.record import ClinicalData
from titer.modalities._archives import read_archive
from titer.modalities._checks import samples
from titer.modalities._dicom import read_series
from titer.modalities._twins import twins
from titer.modalities._volumes import read_volume

SIDE = 64
FEW, MANY = 40, 400
_BESIDE = 0.1
"""Of each further row may stay beside the result: names, digests, and where it stood in its file."""


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)


def encoded(number: int, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(number)).save(stream, format=kind)
    return stream.getvalue()


def labels(folder: Path, ending: str, count: int) -> Path:
    rows = [f"{i}{ending},{'ill' if i % 2 else 'healthy'},p{i}" for i in range(count)]
    (folder / "labels.csv").write_text("\n".join(["image,label,patient_id", *rows]))
    return folder / "labels.csv"


def size_of(data: ClinicalData) -> int:
    return sum(4 * part.x.numel() for part in data.parts().values())


def a_folder_of_jpeg(folder: Path, count: int) -> Iterator[int]:
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(encoded(i, "JPEG"))
    spec = {"name": "image-folder", "folder": str(folder), "labels": str(labels(folder, ".jpg", count))}
    yield 0
    yield size_of(make_modality(spec)())


def a_folder_of_dicom(folder: Path, count: int) -> Iterator[int]:
    for i in range(count):
        (folder / f"{i}.dcm").write_bytes(dicom(picture(i).astype(np.int16)))
    spec = {"name": "image-folder", "folder": str(folder), "labels": str(labels(folder, ".dcm", count))}
    yield 0
    yield size_of(make_modality(spec)())


def a_zip_of_jpeg(folder: Path, count: int) -> Iterator[int]:
    path, names = folder / "a.zip", [f"{i}.jpg" for i in range(count)]
    with zipfile.ZipFile(path, "w") as packed:
        for i, name in enumerate(names):
            packed.writestr(name, encoded(i, "JPEG"))
    yield 0
    x = read_archive(path, names, channels=1, side=SIDE)
    groups = twins(x, 0.99)
    yield 4 * samples(x, groups, ids=names, patients=names).x.numel()


def arrays_of(folder: Path, content: dict[str, np.ndarray]) -> Iterator[int]:
    path = folder / "a.npz"
    np.savez_compressed(path, **content)
    del content
    yield 0
    yield size_of(make_modality({"name": "arrays", "file": str(path)})())


def pictures(count: int) -> np.ndarray:
    return np.stack([picture(i) for i in range(count)])


def an_npz(folder: Path, count: int) -> Iterator[int]:
    return arrays_of(folder, {"images": pictures(count), "labels": np.arange(count) % 2})


def an_npz_of_parts(folder: Path, count: int) -> Iterator[int]:
    parts = {"train": count // 2, "val": count // 4, "test": count // 4}
    images = {f"{name}_images": pictures(rows) for name, rows in parts.items()}
    return arrays_of(folder, images | {f"{name}_labels": np.arange(rows) % 2 for name, rows in parts.items()})


def a_series(folder: Path, count: int) -> Iterator[int]:
    for i in range(count):
        (folder / f"{(7 * i) % count}.dcm").write_bytes(dicom(picture(i).astype(np.int16), place=2.0 * i))
    files = [(one.name, one) for one in sorted(folder.iterdir())]
    yield 0
    yield read_series(files)[0].nbytes


def a_nifti_file(folder: Path, count: int) -> Iterator[int]:
    axes = pictures(count).transpose(2, 1, 0).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(axes, np.eye(4)), folder / "a.nii.gz")
    del axes
    yield 0
    yield read_volume(folder / "a.nii.gz").nbytes


def an_nrrd_file(folder: Path, count: int) -> Iterator[int]:
    header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {SIDE} {SIDE} {count}\nendian: little\nencoding: gzip\n\n"
    (folder / "a.nrrd").write_bytes(header.encode() + gzip.compress(pictures(count).astype("<i2").tobytes()))
    yield 0
    yield read_volume(folder / "a.nrrd").nbytes


def many_volumes(folder: Path, count: int) -> Iterator[int]:
    mask = np.zeros((SIDE, SIDE, 4), np.int16)
    mask[3:9, 3:9, :2] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "mask.nii")
    lines = ["volume,mask,patient_id,split"]
    for i in range(count // 4):
        volume = pictures(4).transpose(2, 1, 0).astype(np.int16) + i
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{i}.nii")
        lines.append(f"{i}.nii,mask.nii,p{i},{('train', 'val', 'test')[i % 3]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    del volume
    spec = {"name": "brain-volumes", "side": SIDE, "folder": str(folder), "labels": str(folder / "labels.csv")}
    yield 0
    data = make_modality(spec)()
    yield sum(4 * part.x.numel() + 8 * part.y.numel() for part in data.parts().values())


@pytest.mark.parametrize(
    "reader",
    [
        a_folder_of_jpeg,
        a_folder_of_dicom,
        a_zip_of_jpeg,
        an_npz,
        an_npz_of_parts,
        a_series,
        a_nifti_file,
        an_nrrd_file,
        many_volumes,
    ],
    ids=lambda reader: reader.__name__.replace("_", " "),
)
def test_memory_beside_the_result_stays_flat_as_ten_times_as_much_is_read(
    reader: Callable[[Path, int], Iterator[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TITER_CACHE", str(tmp_path / "cache"))
    results, beside = [], []
    for count in (FEW, FEW, MANY):  # once more at first: libraries are imported at the first use
        folder = tmp_path / f"{len(results)}"
        folder.mkdir()
        reading = reader(folder, count)
        next(reading)
        tracemalloc.start()
        results.append(next(reading))
        beside.append(tracemalloc.get_traced_memory()[1] - results[-1])
        tracemalloc.stop()
    assert results[2] == 10 * results[1]
    grown = max(0, beside[2]) - max(0, beside[1])
    assert grown < _BESIDE * (results[2] - results[1]), (results, beside)
