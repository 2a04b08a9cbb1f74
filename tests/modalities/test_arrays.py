from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.core.record import ClinicalData

Write = Callable[..., str]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 9, 8), dtype=np.uint8)
LABELS = np.arange(30) % 2
TABLE = RNG.normal(size=(30, 5))


def load(file: str, **settings: Any) -> ClinicalData:
    return make_modality({"name": "arrays", "file": file, **settings})()


def refusal(file: str, **settings: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(file, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_grey_images(npz: Write) -> None:
    data = load(npz(images=GREY, labels=LABELS[:, None], sex=np.array(["F", "M"] * 15), age=np.full(30, 70.0)))
    assert data.pool is not None
    assert data.pool.x.shape == (30, 1, 9, 8)
    assert np.array_equal(data.pool.x[:, 0].numpy(), GREY)
    assert (data.kind, data.value_range, data.classes) == ("image", (0.0, 255.0), ("0", "1"))
    assert data.pool.groups["age_band"][0] == "65+"
    assert data.units["/255"] == 1.0


def test_colour_images_have_their_channels_first(npz: Write) -> None:
    colour = RNG.integers(0, 256, (30, 9, 8, 3), dtype=np.uint8)
    data = load(npz(x=colour, y=LABELS))
    assert data.pool is not None
    assert np.array_equal(data.pool.x[4, 2].numpy(), colour[4, :, :, 2])


def test_a_table_has_units_of_sd_and_no_box(npz: Write) -> None:
    names = np.array([f"gene {i}" for i in range(5)])
    data = load(npz(x=TABLE, y=np.array(["a", "b"] * 15), feature_names=names), positive="a")
    assert (data.kind, data.domain, data.value_range) == ("table", (), None)
    assert data.units == {"sd": "sd"}
    assert data.feature_names == tuple(names)


def test_a_table_with_a_range_has_a_box(npz: Write) -> None:
    data = load(npz(x=RNG.random((30, 5)), y=LABELS, class_names=np.array(["no", "yes"])), value_range=[0, 1])
    assert data.domain[0].describe() == "each value in [0, 1]"
    assert data.units == {"sd": "sd", "range": 1.0}
    assert data.classes == ("no", "yes")


def test_the_form_of_medmnist(npz: Write) -> None:
    parts = {"train": 14, "val": 8, "test": 8}
    content = {}
    for part, rows in parts.items():
        content[f"{part}_images"] = GREY[:rows]
        content[f"{part}_labels"] = LABELS[:rows, None]
        content[f"{part}_patient_id"] = np.array([f"{part}{i // 2}" for i in range(rows)])
    data = load(npz(**content))
    assert data.pool is None
    assert {name: len(part) for name, part in data.fixed.items()} == {"train": 14, "validation": 8, "test": 8}
    content["val_patient_id"] = content["train_patient_id"][:8]
    assert "stand in both train and validation" in refusal(npz(**content))
    assert "lacks val_images and val_labels" in refusal(npz(**{k: v for k, v in content.items() if k[:3] != "val"}))
    lone = {k: v for k, v in content.items() if k != "val_patient_id"}
    assert "patient_id in some parts only" in refusal(npz(**lone))
    assert "both images and train_" in refusal(npz(**content, images=GREY))
    odd = content | {"val_images": GREY[:8].astype(np.uint16)}
    assert "allowed is one kind" in refusal(npz(**odd))


def test_the_files_own_split(npz: Write) -> None:
    split = np.array(["train"] * 16 + ["validation"] * 6 + ["test"] * 8)
    assert set(load(npz(x=TABLE, y=LABELS, split=split)).fixed) == {"train", "validation", "test"}
    one_class = np.where(split == "test", 0, LABELS)
    assert "data.test holds no row of class 1" in refusal(npz(x=TABLE, y=one_class, split=split))


def test_chest_xray_file_loads_as_arrays(titer_data: Path) -> None:
    data = load(str(titer_data / "chest_xray" / "pneumoniamnist_28.npz"), classes=["normal", "pneumonia"])
    assert {name: len(part) for name, part in data.fixed.items()} == {"train": 4682, "validation": 524, "test": 624}


@pytest.mark.parametrize("where", ["images", "labels", "notes"])
def test_nothing_is_unpickled(tmp_path: Path, where: str) -> None:
    mark = tmp_path / "executed"
    bombs = np.array([Bomb(str(mark))] * 30, dtype=object)
    content: dict[str, Any] = {"images": GREY, "labels": LABELS} | {where: bombs}
    path = tmp_path / "objects.npz"
    np.savez(path, allow_pickle=True, **content)
    message = refusal(str(path))
    assert f"its array '{where}' cannot be read" in message
    assert "nothing is unpickled" in message
    assert not mark.exists()


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "data.npz"
    path.write_bytes(pickle.dumps(Bomb(str(mark))))
    assert "nothing is unpickled" in refusal(str(path))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    assert "data.file" in refusal(str(path))


def test_a_missing_file_and_a_lone_array(tmp_path: Path) -> None:
    assert "no such file" in refusal(str(tmp_path / "absent.npz"))
    np.save(tmp_path / "one.npy", GREY)
    assert "holds neither images and x" in refusal(str(tmp_path / "one.npy"))


def test_float_images_need_their_range(npz: Write) -> None:
    scaled = (GREY / 255).astype(np.float32)
    path = npz(images=scaled, labels=LABELS)
    assert "data.value_range is missing: float32 images need it" in refusal(path)
    assert load(path, value_range=[0, 1]).units == {"grey level": 1.0, "/255": 1 / 255, "range": 1.0}
    message = refusal(path, value_range=[0, 0.5])
    assert "does not hold in 30 rows (row_00000" in message
    assert "a lower and a higher finite number" in refusal(path, value_range=[1, 0])


def test_sixteen_bits(npz: Write) -> None:
    assert load(npz(images=GREY.astype(np.uint16), labels=LABELS)).value_range == (0.0, 65535.0)


def test_nan_pixels_name_their_rows(npz: Write) -> None:
    broken = GREY.astype(np.float64)
    broken[7, 0, 0] = np.nan
    broken[9, 1, 1] = np.inf
    message = refusal(npz(images=np.where(np.isinf(broken), np.nan, broken), labels=LABELS), value_range=[0, 255])
    assert "NaN or infinite in row_00007, row_00009" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"labels": LABELS}, "holds neither images and x"),
        ({"images": GREY, "x": GREY, "labels": LABELS}, "holds both images and x"),
        ({"images": GREY}, "holds neither labels and y"),
        ({"images": GREY, "labels": LABELS[:29]}, "data.y has 29 rows"),
        ({"images": GREY, "labels": np.eye(2)[LABELS]}, "one value a row"),
        ({"images": GREY, "labels": LABELS, "sex": np.array("F")}, "data.sex has the shape ()"),
        ({"images": GREY, "labels": LABELS, "age": np.arange(3)}, "data.age has 3 rows"),
        ({"images": np.zeros((30, 9, 8, 4), np.uint8), "labels": LABELS}, "(30, 9, 8, 4): allowed are"),
        ({"images": np.zeros((30, 3, 9, 8), np.uint8), "labels": LABELS}, "channels come last"),
        ({"images": np.zeros(30, np.uint8), "labels": LABELS}, "has the shape (30,)"),
        ({"images": GREY.astype(complex), "labels": LABELS}, "type complex128"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "names 0 class(es)"),
        ({"images": GREY, "labels": LABELS - 1}, "data.label"),
        ({"images": GREY, "labels": LABELS + 0.5}, "data.label"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array(["a"])}, "data.classes"),
        ({"images": GREY, "labels": LABELS * 2, "class_names": np.array(["a", "b"])}, "'2' in row_00001"),
        ({"images": GREY, "labels": LABELS, "PatientID": LABELS}, "data.PatientID is not read"),
        ({"images": GREY, "labels": LABELS, "feature_names": np.array(["a"])}, "allowed for tables only"),
        ({"x": TABLE, "y": LABELS, "feature_names": np.array(["a"])}, "the table has 5 columns"),
        ({"x": TABLE, "y": LABELS, "feature_names": np.array(list("aabcd"))}, "names twice: a"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(npz: Write, content: dict[str, Any], said: str) -> None:
    message = refusal(npz(**content))
    assert said in message
