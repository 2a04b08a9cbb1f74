"""The explanation study in a whole run: what is kept, what is skipped with its reason, and what is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.assess.outputs import plan_text, write_mask
from tests.assess.plans import tiny

from titer.assess.plan import load_plan
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.report.build import build

PLAN = """
name = "tiny"
trials = 2
seed = 7
workers = 1
attacks = ["fgsm", { name = "pgd", steps = 10 }]
data = { name = "cytology" }
training = { epochs = 10, batch_size = 32, learning_rate = 0.01 }
models = [{ label = "mlp", network = { name = "mlp", hidden = [16] } }]
threats = [{ norm = "linf", eps = [0.25, 0.5], unit = "sd" }]
defenses = [{ label = "spread", defense = { name = "distillation", temperature = 2 } }]

[explanation]
explainers = ["integrated-gradients", "gradcam", { name = "lime", samples = 30 }]
attack = "pgd"
rows = 40
"""

OVERLAPS = [f"overlap_{name}" for name in ("new", "other", "first", "noise")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("explained")
    return assess(tiny(base, PLAN), base / "out", workers=1)


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "explanation.parquet")


def notes(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "explanation.json").read_text())["parts"])


def test_every_explained_row_was_flipped_under_the_largest_budget(rows: pd.DataFrame) -> None:
    told = rows[rows["kind"] == "saliency"]
    assert set(told["explainer"]) == {"integrated-gradients", "lime (samples = 30)"}
    assert set(told["threat"]) == {"linf 0.5 sd"}
    assert set(told["attack"]) == {"pgd"}
    assert set(told["defense"]) == {"none"}
    assert (told["clean_prediction"] == told["label"]).all()
    assert (told["adversarial_prediction"] != told["label"]).all()
    assert told["cosine_new"].between(-1.0001, 1.0001).all()
    assert ((told[OVERLAPS] >= 0) & (told[OVERLAPS] <= 1)).all(axis=None)
    assert told["inside_clean"].isna().all()
    assert len(told[told["trial"] == 0]) >= 5


def test_another_decision_moves_an_explanation_with_no_attack_at_all(rows: pd.DataFrame) -> None:
    """Of two classes, what speaks for one speaks against the other: the columns must let a reader see that."""
    told = rows[rows["explainer"] == "integrated-gradients"]
    assert told["cosine_other"].mean() < 0
    assert told["cosine_noise"].mean() > 0.9
    assert told["cosine_first"].mean() > 0.9
    assert told["noise_length"].between(0.5, 1.01).all()


def test_gradcam_on_a_table_is_skipped_with_its_reason(folder: Path) -> None:
    skipped = [note for note in notes(folder) if "skipped" in note]
    assert {note["spec"]["explainer"] for note in skipped} == {"gradcam"}
    assert len(skipped) == 2
    assert all("Grad-CAM takes signals, images and volumes" in note["skipped"] for note in skipped)


def test_the_map_holds_every_studied_row_of_the_first_trial(folder: Path, rows: pd.DataFrame) -> None:
    points = rows[rows["kind"] == "map"]
    facts = next(note["facts"] for note in notes(folder) if "map" in note["spec"])
    assert facts["studied"] == 40 == (~points["attacked"]).sum()
    assert facts["attacked"] == points["attacked"].sum()
    assert facts["flipped"] == points["flipped"].sum() > 0
    assert facts["features"] == 16
    assert set(points["trial"]) == {0}
    assert np.isfinite(points[["x", "y"]]).all().all()
    before, after = (points[points["attacked"] == hit]["same_class_neighbours"].mean() for hit in (False, True))
    assert before > 0.8
    assert after < before


def test_arrays_are_of_the_first_trial_and_hold_no_object(folder: Path) -> None:
    found = list((folder / "explanation" / "examples").glob("*.npz"))
    assert len(found) == 2
    with np.load(found[0], allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        assert file["clean"].shape == file["adversarial_saliency"].shape == (4, 30)
    assert meta["feature_names"][0] == "mean radius"
    assert meta["class_names"] == ["benign", "malignant"]


def test_a_second_call_does_only_what_is_lost_and_gives_the_same(folder: Path, rows: pd.DataFrame) -> None:
    lost = next(note["part"] for note in notes(folder) if note["spec"].get("explainer", "").startswith("lime"))
    (folder / "explanation" / "cells" / f"{lost}.json").unlink()
    before = times(folder)
    assess(tiny(folder.parent, PLAN), folder, workers=1)
    assert {path.stem for path, time in times(folder).items() if before.get(path) != time} == {lost}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "explanation.parquet"), rows)


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "explanation").rglob("*.*")}


def test_the_report_tells_it(folder: Path) -> None:
    page = build(folder).read_text()
    data = json.loads((folder / "report.json").read_text())
    [case] = data["explained"]["cases"]
    assert [one["title"] for one in case["moved"]] == ["Integrated gradients", "LIME (samples = 30)"]
    assert case["trials"] == 2
    assert case["moved"][0]["cosine_new"]["low"] < case["moved"][0]["cosine_new"]["mean"]
    assert case["left_out"] == [["Grad-CAM", case["left_out"][0][1]]]
    assert 'id="explanations"' in page
    assert "mean radius" in page


def test_masks_give_the_share_inside_the_lesion(tmp_path: Path) -> None:
    write_mask(tmp_path, 80)
    text = plan_text(
        "mask", ['norm = "linf"\neps = [60]\nunit = "/255"'], attacks='[{ name = "pgd", steps = 10 }]', epochs="12"
    )
    text += '\n[explanation]\nexplainers = ["gradcam", "integrated-gradients"]\nrows = 12\n'
    (tmp_path / "mask.toml").write_text(text)
    torch.manual_seed(0)
    folder = assess(load_plan(tmp_path / "mask.toml"), tmp_path / "out", workers=1)
    told = pd.read_parquet(folder / "explanation.parquet").query("kind == 'saliency'")
    assert len(told) > 0
    assert told["inside_clean"].between(0, 1).any()
    build(folder)
    assert "inside the lesion" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"gradcam"', '"grad-cam"', "explanation.explainers[1] = 'grad-cam' is not known"),
        ('"gradcam"', '"integrated-gradients"', "stands twice"),
        ("samples = 30", "samples = 0", "explanation.explainers[2].samples = 0 is not allowed"),
        ('attack = "pgd"', 'attack = "gpd"', "explanation.attack = 'gpd' is not known"),
        ("rows = 40", "rows = 0", "explanation.rows = 0 is not allowed"),
        ("rows = 40", 'defenses = ["distil"]', "explanation.defenses = 'distil' is not known"),
        ("rows = 40", "row = 60", "explanation.row = 60 is not a known key"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        tiny(tmp_path, PLAN.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
