"""Arrays of several findings, of a value and of masks: what is read, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from titer.core.errors import SpecError
from titer.core.plugins import make_modality
from titer.core.record import ClinicalData

Write = Callable[..., str]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 9, 8), dtype=np.uint8)
TABLE = RNG.normal(size=(30, 5))
FINDINGS = np.stack([np.arange(30) % 2, np.arange(30) % 3 == 0], 1).astype(np.int64)
VALUES = RNG.normal(120, 40, 30)
MASKS = (GREY > 200).astype(np.uint8)


def load(file: str, **settings: Any) -> ClinicalData:
    return make_modality({"name": "arrays", "file": file, **settings})()


def refusal(file: str, **settings: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(file, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_findings_have_a_column_each(npz: Write) -> None:
    data = load(npz(images=GREY, labels=FINDINGS.astype(bool), class_names=np.array(["nodule", "mass"])), task="labels")
    assert (data.output, data.classes, data.positive, data.tolerance) == ("labels", ("nodule", "mass"), None, None)
    assert data.pool is not None
    assert data.pool.y.dtype == torch.int64
    assert np.array_equal(data.pool.y.numpy(), FINDINGS)
    assert load(npz(images=GREY, labels=FINDINGS), task="labels").classes == ("finding 1", "finding 2")


def test_the_form_of_medmnist_holds_for_findings(npz: Write) -> None:
    content = {f"{part}_images": GREY[:10] for part in ("train", "val", "test")}
    content |= {f"{part}_labels": FINDINGS[:10] for part in ("train", "val", "test")}
    fixed = load(npz(**content), task="labels").fixed
    assert fixed["validation"].y.shape == (10, 2)


def test_a_value_has_its_tolerance_and_its_name(npz: Write) -> None:
    data = load(npz(x=TABLE, y=VALUES[:, None]), task="value", tolerance=12, classes=["bone age in months"])
    assert (data.output, data.classes, data.tolerance) == ("value", ("bone age in months",), 12.0)
    assert data.pool is not None
    assert data.pool.y.dtype == torch.float32
    assert np.allclose(data.pool.y.numpy(), VALUES)
    assert load(npz(x=TABLE, y=VALUES), task="value", tolerance=1).classes == ("value",)


def test_masks_are_those_of_their_images(npz: Write) -> None:
    data = load(npz(images=GREY, labels=MASKS[..., None]), task="mask")
    assert (data.output, data.classes) == ("mask", ("background", "lesion"))
    assert data.pool is not None
    assert data.pool.y.shape == (30, 9, 8)
    assert np.array_equal(data.pool.y.numpy(), MASKS)
    three = load(
        npz(images=GREY, labels=(GREY // 100).astype(float)), task="mask", classes=["none", "oedema", "tumour"]
    )
    assert three.classes == ("none", "oedema", "tumour")


def test_the_digest_knows_the_task(npz: Write) -> None:
    path = npz(x=TABLE, y=np.arange(30) % 2)
    digests = {
        load(path).digest(),
        load(path, task="value", tolerance=1).digest(),
        load(path, task="value", tolerance=2).digest(),
    }
    assert len(digests) == 3


MASK = MASKS.astype(float)
BROKEN_VALUES = np.where(np.arange(30) == 4, np.nan, VALUES)


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ({"y": VALUES}, {"task": "valeu"}, "valeu"),
        ({"y": VALUES}, {"task": "value"}, "data.tolerance is missing"),
        ({"y": VALUES}, {"task": "value", "tolerance": 0}, "tolerance"),
        ({"y": VALUES}, {"task": "value", "tolerance": 1, "positive": "a"}, "data.positive = 'a' is not allowed with"),
        ({"y": VALUES}, {"task": "value", "tolerance": 1, "classes": ["a", "b"]}, "the one name of what is measured"),
        ({"y": BROKEN_VALUES}, {"task": "value", "tolerance": 1}, "data.labels is NaN or infinite in row_00004"),
        ({"y": VALUES.astype(str)}, {"task": "value", "tolerance": 1}, "data.labels holds values of type str"),
        ({"y": FINDINGS}, {"task": "value", "tolerance": 1}, "has the shape (30, 2): allowed is one value a row"),
        ({"y": 0 * VALUES}, {"task": "value", "tolerance": 1}, "has the value 0 in every row"),
        ({"y": FINDINGS}, {"tolerance": 3}, "data.tolerance = 3 is not allowed with task = 'classes'"),
        ({"y": FINDINGS}, {}, "data.y has the shape (30, 2): allowed is one value a row"),
        ({"y": FINDINGS}, {"task": "labels", "classes": ["a"]}, "data.classes has 1 names: labels has 2 findings"),
        ({"y": FINDINGS}, {"task": "labels", "classes": ["a", "a"]}, "different names, one a finding"),
        ({"y": FINDINGS * 2}, {"task": "labels"}, "data.labels is neither 0 nor 1 in row_00000 (2)"),
        ({"y": FINDINGS * np.nan}, {"task": "labels"}, "neither 0 nor 1 in row_00000 (nan)"),
        ({"y": FINDINGS[:, 0]}, {"task": "labels"}, "(30,): allowed with task = 'labels' is [N, findings]"),
        ({"y": FINDINGS * [1, 0]}, {"task": "labels"}, "has finding 2 in no row"),
        ({"y": FINDINGS | [1, 0]}, {"task": "labels"}, "has finding 1 in every row"),
        ({"y": MASK}, {"task": "mask"}, "has the shape (30, 9, 8): allowed with task = 'mask' is masks of images"),
        ({"images": GREY, "labels": MASK[:, 1:]}, {"task": "mask"}, "allowed with task = 'mask' is [N, 9, 8]"),
        ({"images": GREY, "labels": MASK * 255}, {"task": "mask"}, "has values up to 255: store 0 and 1, or"),
        ({"images": GREY, "labels": MASK / 2}, {"task": "mask"}, "is no class of the mask in row_00000 (0.5)"),
        ({"images": GREY, "labels": -MASK}, {"task": "mask"}, "and 20 more; allowed are 0 (background), 1 (lesion)"),
        ({"images": GREY, "labels": 0 * MASK}, {"task": "mask"}, "has no pixel of class lesion"),
        ({"images": GREY, "labels": MASK}, {"task": "mask", "classes": ["all"]}, "the background first"),
        ({"images": GREY, "labels": MASK[:29]}, {"task": "mask"}, "data.y has 29 rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(npz: Write, content: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    x = {} if "images" in content else {"x": TABLE}
    assert said in refusal(npz(**x, **content), **settings)
