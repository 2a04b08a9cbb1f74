"""A bundle holds what it says, byte for byte, or is refused with the reason."""

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.guard.judge.scene import dicom

from titer.core.errors import SpecError
from titer.core.model import network_model
from titer.core.plugins import make
from titer.guard.judge.build import Description, build
from titer.guard.judge.bundle import InputPart, Moments, read_bundle, stored
from titer.guard.judge.demo import demo_model
from titer.guard.judge.inputs import image_rows, rows_of
from titer.guard.judge.models import load

IMAGE = InputPart(kind="image", shape=(1, 28, 28), value_range=(0.0, 255.0))


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def test_a_bundle_says_what_the_model_and_its_detectors_said(tmp_path):
    model, data, _ = demo_model(3)
    about = Description(
        name="all", version="1", title="all that can be kept", classes=("normal", "pneumonia"), input=IMAGE,
        network={"name": "small-cnn", "width": 8}, preprocess=("unit", 0.0, 255.0),
    )  # fmt: skip
    specs = [
        "low-confidence", "shift", "feature-squeezing", "nearest-neighbour", "saliency-drift",
        {"name": "reconstruction", "epochs": 1, "width": 4}, {"name": "ensemble-disagreement", "members": 1},
    ]  # fmt: skip
    short = replace(data, train=data.train.take(range(200)), recipe=replace(data.recipe, epochs=1))
    built = build(tmp_path / "all", about, model, short, detectors=specs, rate=0.05)
    assert list(built.refused) == ["saliency-drift"]
    loaded = load(tmp_path / "all")
    assert [one.name for one in loaded.alarms] == [
        "low-confidence", "shift", "feature-squeezing", "nearest-neighbour", "reconstruction", "ensemble-disagreement",
    ]  # fmt: skip
    assert torch.allclose(loaded.model.logits(data.validation.x), model.logits(data.validation.x), atol=1e-4)
    assert not any(path.suffix in (".pt", ".pkl", ".pth") for path in built.pinned.folder.iterdir())


def test_thresholds_hold_back_the_stated_share_of_clean_verdicts_of_one_image_and_of_many(bundle):
    loaded = load(bundle)
    _, data, _ = demo_model(0)
    x = data.validation.x
    scores = {one.name: one.score(x) for one in loaded.alarms}
    for inputs in (1, 10):
        limits = loaded.limits(inputs)
        above = torch.stack([scores[name] > limit for name, limit in limits.items()]).any(0)
        held = above[: len(x) // inputs * inputs].view(-1, inputs).any(1).float().mean()
        assert held <= 0.05 + 0.03
    assert all(loaded.limits(1)[name] <= limit for name, limit in loaded.limits(10).items())


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.safetensors", "is not the file that was pinned"),
        ("calibration.safetensors", "is not the file that was pinned"),
        ("detector-1-shift.safetensors", "is not the file that was pinned"),
        ("bundle.json", "bundle.json"),
    ],
)
def test_g7_one_flipped_bit_of_any_file_is_refused(own, file, said):
    content = bytearray((own / file).read_bytes())
    content[len(content) // 2] ^= 0x80
    (own / file).write_bytes(content)
    with pytest.raises(SpecError, match=said):
        load(own)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format"),
        ({"model": {"weights": {"file": "../model.safetensors", "sha256": "0" * 64}}}, "model.weights.file"),
        ({"input": {"shape": [1, 32]}}, "cannot be had back"),
        ({"calibration": None}, "calibration is missing"),
        ({"secret": 1}, "secret"),
        ({"model": {"network": "resnet19"}}, "resnet19"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_with_the_setting(own, change, said):
    manifest = json.loads((own / "bundle.json").read_text())
    for key, value in change.items():
        manifest[key] = manifest[key] | value if isinstance(value, dict) else value
    (own / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises((SpecError, RuntimeError), match=said):
        load(own)


def test_a_bundle_that_would_answer_otherwise_than_its_model_is_not_made(tmp_path):
    model, data, _ = demo_model(0)
    about = Description(
        name="wrong", version="1", title="wrong", classes=("normal", "pneumonia"), input=IMAGE,
        network={"name": "small-cnn", "width": 8}, preprocess="none",
    )  # fmt: skip
    with pytest.raises(SpecError, match="preprocess or network is not that of the model"):
        build(tmp_path / "wrong", about, model, data)


def test_moments_are_kept_and_a_changed_manifest_is_another_version(own, tmp_path):
    net = make("networks", "mlp")((4,), 3)
    mean, sd = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 1.0, 2.0])
    model = network_model("table", net, lambda x: (x - mean) / sd, {})
    _, data, _ = demo_model(0)
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    part = replace(data.validation.take(range(60)), x=x, y=torch.arange(60) % 3)
    table = replace(data, train=part, validation=part, classes=3, value_range=None)
    about = Description(
        name="table", version="1", title="genes", classes=("a", "b", "c"), network="mlp",
        input=InputPart(kind="expression", shape=(4,)),
        preprocess=Moments(mean=tuple(mean.tolist()), sd=tuple(sd.tolist())),
    )  # fmt: skip
    built = build(tmp_path / "table", about, model, table, detectors=["low-confidence"])
    assert torch.allclose(load(tmp_path / "table").model.logits(x), model.logits(x), atol=1e-5)
    before = read_bundle(own).version
    manifest = json.loads((own / "bundle.json").read_text())
    (own / "bundle.json").write_text(json.dumps(manifest | {"title": "another"}))
    assert read_bundle(own).version != before
    assert built.pinned.version.startswith("1+")


def test_an_onnx_model_answers_as_the_network_that_it_was_made_of(own):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2))
    path = own / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(2, 1, 28, 28),), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    manifest = json.loads((own / "bundle.json").read_text())
    manifest["model"] |= {"format": "onnx", "network": None, "weights": stored(path).model_dump()}
    manifest["detectors"], manifest["calibration"] = [], None
    (own / "bundle.json").write_text(json.dumps(manifest))
    x = 255 * torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(load(own).model.logits(x), net(x / 255), atol=1e-4)


def test_an_image_is_windowed_turned_and_resized_as_the_contract_says(tmp_path):
    values = np.zeros((56, 56))
    values[:, 28:] = 200
    content = dicom(tmp_path / "one.dcm", values, "1.2.3.1")
    (row,) = image_rows(content, IMAGE, 1)
    assert row.shape == (1, 1, 28, 28)
    assert row[0, 0, 5, 2] == 0
    assert row[0, 0, 5, 25] == pytest.approx(200, abs=0.01)
    (windowed,) = image_rows(content, IMAGE.model_copy(update={"window": (100.0, 300.0)}), 1)
    assert windowed[0, 0, 5, 25] == pytest.approx(127.5)
    (own,) = image_rows(content, IMAGE.model_copy(update={"window": "image"}), 1)
    assert own[0, 0, 5, 25] == pytest.approx(255)
    with pytest.raises(ValueError, match="the model takes ecg"):
        image_rows(content, InputPart(kind="ecg", shape=(1, 250)), 1)
    with pytest.raises(ValueError, match="no DICOM"):
        image_rows(b"nothing", IMAGE, 1)


@pytest.mark.parametrize(
    ("values", "shape", "said"),
    [
        ([1.0] * 3, [1, 4], "needs others"),
        ([[1, 2, 3, 4], [1, 2, 3]], [2, 4], "not of one length"),
        (["a"] * 4, [1, 4], "numbers alone"),
        ([True] * 4, [1, 4], "numbers alone"),
        ([1, 2, 3, 1e39], [1, 4], "no finite numbers"),
        ([1, 2, 3, 11], [1, 4], "allowed are 0 to 10 mV"),
        ([1] * 4, [1, 2, 2], "allowed is"),
        ([], [0, 4], "allowed is"),
        ([1] * 12, [3, 4], "N from 1 to 2"),
        ([[[1, 2, 3, 4]]], [1, 4], "needs others"),
    ],
)
def test_numbers_that_break_the_contract_are_named(values, shape, said):
    contract = InputPart(kind="ecg", shape=(4,), value_range=(0.0, 10.0), unit="mV")
    with pytest.raises(ValueError, match=re.escape(said)):
        rows_of(values, shape, contract, 2)


def test_notes_are_whole_numbers_and_nested_or_flat_lists_are_the_same_rows():
    contract = InputPart(kind="notes", shape=(3,))
    assert (rows_of([[1, 2, 3]], [1, 3], contract, 4) == rows_of([1, 2, 3], [1, 3], contract, 4)).all()
    with pytest.raises(ValueError, match="fractions"):
        rows_of([1, 2, 3.5], [1, 3], contract, 4)
