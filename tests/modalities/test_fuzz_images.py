"""Readers of images and volumes meet a thousand damaged files each: one refusal each, no crash, no absurd memory."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from tests.modalities.dicom_files import dicom
from tests.modalities.mutations import survives

from titer.core.errors import SpecError
from titer.modalities._archives import fill
from titer.modalities._dicom import read_dicom
from titer.modalities._volumes import read_nifti, read_volume


def test_dicom_with_damage() -> None:
    assert survives(read_dicom, dicom(), ValueError) > 200


def test_nifti_with_damage(tmp_path: Path) -> None:
    content = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(6, 5, 4), np.eye(4)).to_bytes()
    path = tmp_path / "a.nii"

    def read(damaged: bytes) -> object:
        path.write_bytes(damaged)
        return read_nifti(path)

    assert survives(read, content, ValueError) > 200
    assert survives(read, gzip.compress(content), ValueError) > 500


def test_nrrd_with_damage(tmp_path: Path) -> None:
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: gzip\n\n"
    path = tmp_path / "a.nrrd"

    def read(damaged: bytes) -> object:
        path.write_bytes(damaged)
        return read_volume(path)

    assert survives(read, header + gzip.compress(np.arange(120, dtype="<i2").tobytes()), ValueError) > 500


def test_a_zip_of_images_with_damage(tmp_path: Path) -> None:
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, format="JPEG")
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a.jpg", "b.jpg"):
            archive.writestr(name, picture.getvalue())
    path = tmp_path / "a.zip"

    def read(damaged: bytes) -> object:
        path.write_bytes(damaged)
        return fill(np.zeros((2, 1, 8, 8), np.uint8), path, ["a.jpg", "b.jpg"], "data file")

    assert survives(read, packed.getvalue(), SpecError) > 500
