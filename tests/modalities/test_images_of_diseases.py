"""Dermatology, brain MRI slices and brain volumes: the published files, and what is refused of others."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from tests.modalities.dicom_files import dicom

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.core.record import ClinicalData
from titer.modalities._archives import read_archive
from titer.modalities._twins import twins
from titer.modalities._volumes import read_nifti, read_volume
from titer.modalities.brain_volumes import one_slice


def archive(path: Path, pictures: dict[str, np.ndarray]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, pixels in pictures.items():
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, format="PNG")
            packed.writestr(name, stream.getvalue())
    return path


def test_dermatology_keeps_the_official_parts_and_says_unknown(titer_data: Path) -> None:
    data = make_modality({"name": "dermatology", "side": 16})()
    assert {name: len(part) for name, part in data.fixed.items()} == {"train": 2000, "validation": 150, "test": 600}
    assert {name: int(part.y.sum()) for name, part in data.fixed.items()} == {
        "train": 374, "validation": 30, "test": 117,
    }  # fmt: skip
    assert set(data.fixed["test"].groups["sex"]) == {"unknown"}
    assert data.fixed["train"].groups["sex"].count("unknown") == 229
    assert data.classes[data.positive or 0] == "melanoma"
    with zipfile.ZipFile(titer_data / "dermatology" / "isic2017_256px_test.zip") as packed:
        first = Image.open(io.BytesIO(packed.read(f"{data.fixed['test'].ids[0]}.jpg")))
    own = np.asarray(first.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(data.fixed["test"].x[0].permute(1, 2, 0).numpy(), own)


def test_dermatology_drawn_parts_have_age_and_sex(titer_data: Path) -> None:  # noqa: ARG001 - sets TITER_DATA
    data = make_modality({"name": "dermatology", "side": 16, "parts": "drawn", "task": "three classes"})()
    assert data.pool is not None
    assert len(data.pool) == 2150
    assert {"female", "male"} <= set(data.pool.groups["sex"])
    assert torch.bincount(data.pool.y).tolist() == [1450, 296, 404]


def test_no_slice_of_the_brain_stands_in_two_parts(titer_data: Path) -> None:  # noqa: ARG001 - sets TITER_DATA
    drawn = make_modality("brain-mri")()
    official = make_modality({"name": "brain-mri", "parts": "official"})()
    assert drawn.pool is not None
    assert len(drawn.pool) == 1961
    assert len(set(drawn.pool.patients)) < 1700
    assert len(official.fixed["test"]) == 1281
    patients = [set(part.patients) for part in official.fixed.values()]
    assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    assert set(drawn.rules) == {"inside-brain", "outside-brain"}


def test_likeness_joins_copies_and_neighbours_only() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (6, 1, 24, 24)).astype(np.float32)
    x[3] = 0.8 * x[0] + 5
    x[5] = x[3] + rng.normal(0, 2, (1, 24, 24))
    assert twins(x, 0.99).tolist() == [0, 1, 2, 0, 3, 0]


def test_an_archive_is_read_once_and_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITER_CACHE", str(tmp_path / "cache"))
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    path = archive(tmp_path / "a.zip", {"a.png": pixels, "b.png": 255 - pixels})
    found = np.array(read_archive(path, ["b.png", "a.png"], channels=1, side=8))
    assert np.array_equal(found[1, 0], pixels)
    kept = list((tmp_path / "cache" / "images").iterdir())
    assert len(kept) == 1
    np.save(kept[0], found + 1)
    assert np.array_equal(read_archive(path, ["b.png", "a.png"], channels=1, side=8), found + 1)
    kept[0].write_bytes(b"damaged")
    assert np.array_equal(read_archive(path, ["b.png", "a.png"], channels=1, side=8), found)


def test_what_is_wrong_with_an_archive_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.png": np.zeros((8, 8), np.uint8), "deep.png": np.zeros((8, 8), np.uint16)})
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("broken.png", b"text")
    with pytest.raises(SpecError) as caught:
        read_archive(path, ["a.png", "absent.png", "broken.png", "deep.png"], channels=1, side=8)
    message = str(caught.value)
    assert "3 of 4 images cannot be read" in message
    assert "absent.png (not in the archive)" in message
    assert "broken.png (not an image)" in message
    assert "deep.png (has 16 bits, allowed are 8)" in message


def own_volumes(folder: Path, *, patients: tuple[str, ...] = ("a", "b", "c")) -> dict[str, str]:
    """Three volumes of 6 slices in NIfTI, NRRD and DICOM with a bright tumour, their masks, and the CSV file."""
    volume = np.random.default_rng(0).integers(10, 90, (6, 12, 12)).astype(np.int16)
    mask = np.zeros_like(volume)
    mask[0:2, 3:9, 3:9] = 1
    volume[mask == 1] += 100
    axes = volume.transpose(2, 1, 0), mask.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(axes[0], np.eye(4)), folder / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(axes[1], np.eye(4)), folder / "mask.nii")
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 12 12 6\nendian: little\nencoding: raw\n\n"
    (folder / "b.nrrd").write_bytes(header.encode() + volume.astype("<i2").tobytes())
    (folder / "c").mkdir()
    for place, pixels in enumerate(volume):
        (folder / "c" / f"{9 - place}.dcm").write_bytes(dicom(pixels, place=2.0 * place))
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("volume", "mask", "patient_id", "split"))
        names = ("a.nii.gz", "b.nrrd", "c")
        for name, patient, part in zip(names, patients, ("train", "val", "test"), strict=True):
            writer.writerow((name, "mask.nii", patient, part))
    return {"folder": str(folder), "labels": str(folder / "labels.csv")}


def volumes(**settings: object) -> ClinicalData:
    return make_modality({"name": "brain-volumes", "side": 12, **settings})()


def test_one_volume_is_the_same_in_every_format(tmp_path: Path) -> None:
    data = volumes(**own_volumes(tmp_path))
    rows = [data.fixed[part].x for part in ("train", "validation", "test")]
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2] + 24)  # the DICOM slices' rescale intercept is -24
    assert data.fixed["train"].y.flatten(1).sum(1).tolist() == [36, 36, 0, 0, 0, 0]
    assert data.output == "mask"


def test_of_a_block_only_one_slice_may_change(tmp_path: Path) -> None:
    data = volumes(view="blocks", **own_volumes(tmp_path))
    part = data.fixed["train"]
    assert part.x.shape == (3, 1, 4, 12, 12)
    rule = data.rules["one-slice"]
    changed = rule.project(part.x + 1, part.x) != part.x
    assert changed.flatten(3).any(3).any(0)[0].tolist() == [False, False, True, False]
    assert one_slice((1, 5, 2, 2)).text == "only slice 3 of 5 may change"


def test_a_patient_in_two_parts_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"patient_id: a stand in both train and test"):
        volumes(**own_volumes(tmp_path, patients=("a", "b", "a")))


def test_a_mask_of_another_shape_and_a_missing_volume_are_named(tmp_path: Path) -> None:
    settings = own_volumes(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)), tmp_path / "mask.nii")
    with pytest.raises(SpecError, match=r"mask .*mask\.nii' has the shape \(3, 3, 3\), its volume \(6, 12, 12\)"):
        volumes(**settings)
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(SpecError, match=r"a\.nii\.gz': no such file"):
        volumes(**settings)


def test_labels_that_lead_out_of_the_folder_are_named(tmp_path: Path) -> None:
    settings = own_volumes(tmp_path)
    (tmp_path / "labels.csv").write_text("volume,mask,patient_id,split\n../a.nii,m.nii,p,train\n")
    with pytest.raises(SpecError, match=r"line 2 \(\.\./a\.nii\)"):
        volumes(**settings)


def test_the_public_volumes_have_ten_slices_with_tumour(titer_data: Path) -> None:
    assert read_volume(titer_data / "brain_mri" / "brain1_image.nrrd").shape == (25, 256, 256)
    data = make_modality("brain-volumes")()
    ill = {name: int(part.y.flatten(1).any(1).sum()) for name, part in data.fixed.items()}
    assert ill == {"train": 4, "validation": 3, "test": 3}
    assert set(data.fixed["test"].patients) == {"brain2"}


def test_a_nifti_file_applies_its_own_scaling(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(4, 3, 2), np.eye(4))
    image.header.set_slope_inter(2.0, -5.0)
    nibabel.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    assert np.asarray(nibabel.load(tmp_path / "a.nii").dataobj).shape == (4, 3, 2)
    found = read_nifti(tmp_path / "a.nii")
    assert found.shape == (2, 3, 4)
    assert np.allclose(found.transpose(2, 1, 0), np.asarray(nibabel.Nifti1Image.from_bytes(bytes(content)).dataobj))
