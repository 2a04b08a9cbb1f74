from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from titer.core.errors import SpecError
from titer.core.plugins import make, make_modality
from titer.core.record import ClinicalData

Study = Callable[..., tuple[Path, Path]]


def load(paths: tuple[Path, Path], **settings: Any) -> ClinicalData:
    return make_modality({"name": "image-folder", "folder": str(paths[0]), "labels": str(paths[1]), **settings})()


def refusal(paths: tuple[Path, Path], **settings: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(paths, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_grey_levels_labels_patients_and_groups_are_the_files_own(study: Study) -> None:
    folder, labels = study()
    data = load((folder, labels), title="My study")
    pool = data.pool
    assert pool is not None
    assert pool.x.shape == (30, 1, 12, 10)
    assert pool.x.dtype == torch.float32
    third = np.asarray(Image.open(folder / "img_03.png"))
    assert np.array_equal(pool.x[3, 0].numpy(), third.astype(np.float32))
    assert (data.classes, data.positive) == (("healthy", "ill"), 1)
    assert pool.y[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert pool.patients[:4] == ("p0", "p0", "p0", "p1")
    assert pool.groups["sex"][:3] == ("F", "M", "unknown")
    assert pool.groups["age_band"][0] == "0-17"
    assert pool.groups["site"][0] == "north"
    assert data.value_range == (0.0, 255.0)
    assert data.units == {"grey level": 1.0, "/255": 1.0, "range": 255.0}
    assert data.title == "My study"


def test_settings_of_a_plan_are_checked_by_their_types() -> None:
    with pytest.raises(SpecError, match="channels"):
        make("modalities", {"name": "image-folder", "folder": "a", "labels": "b", "channels": 2})


def test_sixteen_bits_keep_their_range(study: Study) -> None:
    data = load(study(dtype=np.uint16))
    assert data.value_range == (0.0, 65535.0)
    assert data.units == {"grey level": 1.0, "/255": 257.0, "range": 65535.0}
    assert data.pool is not None
    assert float(data.pool.x.max()) > 255


def test_depths_that_differ_are_named(study: Study) -> None:
    paths = study()
    Image.fromarray(np.zeros((12, 10), dtype=np.uint16)).save(paths[0] / "img_04.png")
    assert "img_04.png is 16 bits" in refusal(paths)


def test_sizes_that_differ_are_named_and_can_be_resized(study: Study) -> None:
    paths = study()
    Image.new("L", (20, 16)).save(paths[0] / "img_07.png")
    message = refusal(paths)
    assert "1 of 30 images are not 12 x 10: img_07.png is 16 x 20" in message
    assert "set size" in message
    data = load(paths, size=[8, 6], channels=3)
    assert data.pool is not None
    assert data.pool.x.shape == (30, 3, 8, 6)


def test_colour_becomes_luminance_or_three_channels(study: Study) -> None:
    paths = study()
    Image.new("RGB", (10, 12), (255, 0, 0)).save(paths[0] / "img_00.png")
    grey, colour = load(paths).pool, load(paths, channels=3).pool
    assert grey is not None
    assert colour is not None
    assert grey.x[0].unique().tolist() == [76.0]
    assert colour.x[0, :, 0, 0].tolist() == [255.0, 0.0, 0.0]
    assert torch.equal(colour.x[1, 0], colour.x[1, 2])


def test_an_ending_may_be_left_out(study: Study) -> None:
    paths = study(image=[f"img_{i:02d}" for i in range(30)])
    assert load(paths).pool is not None
    Image.new("L", (10, 12)).save(paths[0] / "img_05.jpg")
    assert "img_05 (could be img_05.jpg or img_05.png)" in refusal(paths)


def test_every_image_that_cannot_be_read_is_named_at_once(study: Study) -> None:
    paths = study()
    (paths[0] / "img_01.png").unlink()
    (paths[0] / "img_02.png").write_bytes(b"no image")
    whole = (paths[0] / "img_03.png").read_bytes()
    (paths[0] / "img_03.png").write_bytes(whole[: len(whole) // 2])
    message = refusal(paths)
    assert "3 of 30 images cannot be read" in message
    assert "img_01.png (no such file)" in message
    assert "img_02.png (not an image)" in message
    assert "img_03.png" in message


def test_a_long_list_of_broken_images_is_cut_and_counted(study: Study) -> None:
    paths = study(image=[f"gone_{i:02d}.png" for i in range(30)])
    message = refusal(paths)
    assert "30 of 30 images" in message
    assert "gone_09.png" in message
    assert "and 20 more" in message


def test_a_name_that_leads_out_of_the_folder_is_refused(study: Study) -> None:
    names = ["../labels.csv", "/etc/passwd", *[f"img_{i:02d}.png" for i in range(2, 30)]]
    message = refusal(study(image=names))
    assert message.count("leads out of the folder") == 2


def test_sixteen_bit_colour_is_refused_rather_than_cut_to_eight(study: Study) -> None:
    paths = study()
    Image.fromarray(np.zeros((12, 10), dtype=np.float32)).save(paths[0] / "img_00.tif")
    frame = pd.read_csv(paths[1]).replace({"image": {"img_00.png": "img_00.tif"}})
    frame.to_csv(paths[1], index=False)
    assert "img_00.tif (F with more than 8 bits" in refusal(paths)


def test_several_frames_are_refused(study: Study) -> None:
    paths = study()
    frames = [Image.new("L", (10, 12), i) for i in range(3)]
    frames[0].save(paths[0] / "img_00.tif", save_all=True, append_images=frames[1:])
    frame = pd.read_csv(paths[1]).replace({"image": {"img_00.png": "img_00.tif"}})
    frame.to_csv(paths[1], index=False)
    assert "img_00.tif (holds 3 frames" in refusal(paths)


def test_missing_files_and_folders_are_one_line(study: Study, tmp_path: Path) -> None:
    folder, labels = study()
    assert "no such file" in refusal((folder, tmp_path / "absent.csv"))
    assert "no such directory" in refusal((tmp_path / "absent", labels))


def test_a_file_that_is_no_csv_is_refused(study: Study, tmp_path: Path) -> None:
    folder, _ = study()
    for content in (b"", b"\xff\xfe\x00image", b"image,label\na.png,1,surplus\n", b'image,label\n"a'):
        (tmp_path / "bad.csv").write_bytes(content)
        assert "data.labels" in refusal((folder, tmp_path / "bad.csv"))


def test_a_missing_column_names_the_nearest(study: Study) -> None:
    assert "did you mean 'label'?" in refusal(study(), label_column="labels")
    assert "data.image_column" in refusal(study(image=None))


def test_a_patient_column_under_another_name_is_not_ignored(study: Study) -> None:
    message = refusal(study(patient_id=None, PatientID=["p"] * 30))
    assert "data.PatientID is not read: name it patient_id" in message


def test_labels_are_names_or_indices(study: Study) -> None:
    digits = [str(i // 3 % 3) for i in range(30)]
    data = load(study(label=digits))
    assert (data.classes, data.positive) == (("0", "1", "2"), None)
    named = load(study(label=digits), classes=["a", "b", "c"], positive="b")
    assert (named.classes, named.positive) == (("a", "b", "c"), 1)
    assert torch.equal(data.pool.y, named.pool.y)  # type: ignore[union-attr]


def test_wrong_labels_name_their_rows_all_at_once(study: Study) -> None:
    labels = ["healthy", "ill", "", "sick", *["healthy", "ill"] * 13]
    message = refusal(study(label=labels), classes=["healthy", "ill"])
    assert "data.label is empty in line 4 (img_02.png)" in message
    assert "'sick' in line 5 (img_03.png)" in message
    assert "healthy (0), ill (1)" in message


def test_classes_and_positive_are_checked(study: Study) -> None:
    paths = study()
    assert "did you mean 'ill'?" in refusal(paths, classes=["healthy", "ill"], positive="il")
    assert "data.positive" in refusal(paths, positive="sick")
    assert "two or more different names" in refusal(paths, classes=["ill", "ill"])
    assert "names 1 class(es)" in refusal(study(label=["ill"] * 30))
    assert "data.label has 99: numbers are indices" in refusal(study(label=["99", "0"] * 15))
    assert load(study(label=["99", "0"] * 15), classes=["0", "99"]).positive == 1


def test_one_row_an_image(study: Study) -> None:
    names = [f"img_{i:02d}.png" for i in range(30)]
    message = refusal(study(image=[*names[:29], "img_00"]))
    assert "img_00.png in lines 2, 31" in message


def test_fixed_parts(study: Study) -> None:
    parts = ["train"] * 18 + ["val"] * 6 + ["test"] * 6
    data = load(study(split=parts))
    assert data.pool is None
    assert {name: len(part) for name, part in data.fixed.items()} == {"train": 18, "validation": 6, "test": 6}


def test_a_patient_in_two_parts_is_refused(study: Study) -> None:
    parts = ["train"] * 17 + ["validation"] * 7 + ["test"] * 6
    assert "p5 stand in both train and validation" in refusal(study(split=parts))


def test_parts_are_complete_and_hold_every_class(study: Study) -> None:
    assert "names no row validation" in refusal(study(split=["train"] * 15 + ["test"] * 15))
    assert "'tst' in line 31" in refusal(study(split=["train"] * 29 + ["tst"]))
    parts = ["train"] * 24 + ["validation"] * 3 + ["test"] * 3
    message = refusal(study(split=parts))
    assert "data.test holds no row of class healthy" in message
    assert "data.validation holds no row of class ill" in message


def test_a_row_without_its_patient_is_refused(study: Study) -> None:
    assert "data.patient_id is empty in line 2" in refusal(study(patient_id=["", *["p"] * 29]))


def test_without_patients_each_image_is_its_own(study: Study) -> None:
    pool = load(study(patient_id=None)).pool
    assert pool is not None
    assert len(set(pool.patients)) == 30


def test_real_dermoscopy(titer_data: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(titer_data / "dermatology" / "isic2017_labels.csv", dtype=str)
    chosen = pd.concat(
        rows.groupby("melanoma").head(12)
        for _, rows in frame[frame["split"].isin(["train", "val", "test"])].groupby("split")
    )
    for part in ("train", "val", "test"):
        with zipfile.ZipFile(titer_data / "dermatology" / f"isic2017_256px_{part}.zip") as archive:
            names = {Path(name).stem: name for name in archive.namelist()}
            for image in chosen.loc[chosen["split"] == part, "image_id"]:
                (tmp_path / f"{image}.jpg").write_bytes(archive.read(names[image]))
    chosen = chosen.rename(columns={"age_approximate": "age"})
    chosen.to_csv(tmp_path / "labels.csv", index=False)
    data = load(
        (tmp_path, tmp_path / "labels.csv"),
        image_column="image_id", label_column="melanoma", classes=["benign", "melanoma"], size=[64, 64], channels=3,
    )  # fmt: skip
    assert {name: tuple(part.x.shape) for name, part in data.fixed.items()} == {
        "train": (24, 3, 64, 64), "validation": (24, 3, 64, 64), "test": (24, 3, 64, 64),
    }  # fmt: skip
    train = data.fixed["train"]
    assert set(train.groups["sex"]) <= {"male", "female", "unknown"}
    assert set(data.fixed["test"].groups["age_band"]) == {"unknown"}
    with Image.open(tmp_path / f"{train.ids[0]}.jpg") as picture:
        whole = np.asarray(picture, dtype=np.float32).mean(axis=(0, 1))
    assert np.allclose(train.x[0].mean(dim=(1, 2)).numpy(), whole, atol=0.5)


def test_real_brain_slices_of_several_sizes(titer_data: Path, tmp_path: Path) -> None:
    index = pd.read_csv(titer_data / "brain_mri" / "brain_tumor_4class_index.csv")
    chosen = index.groupby("label").head(6).drop(columns="split")
    with zipfile.ZipFile(titer_data / "brain_mri" / "brain_tumor_4class_224.zip") as archive:
        archive.extractall(tmp_path, chosen["file"].tolist())
    chosen.to_csv(tmp_path / "labels.csv", index=False)
    data = load((tmp_path, tmp_path / "labels.csv"), image_column="file", size=[32, 32])
    assert data.classes == ("glioma", "meningioma", "notumor", "pituitary")
    assert data.pool is not None
    assert data.pool.x.shape == (24, 1, 32, 32)
