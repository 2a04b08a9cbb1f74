"""The section on explanations: its numbers against known ones, what is left out, and files that are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import read_data, read_page
from titer.core.errors import SpecError
from titer.report import saliency_pictures as draw
from titer.report.build import build
from titer.report.explained import Explained, explained, explained_context
from titer.report.feature_maps import feature_map
from titer.report.load import read_run
from titer.report.study import read_study

EVIL = '<script>alert(1)</script>"'
MEASURES = {f"{kind}_{name}": 0.0 for kind in ("cosine", "overlap") for name in ("new", "other", "first", "noise")}
INSIDE = {f"inside_{name}": np.nan for name in ("clean", "new", "other", "first", "noise")}
LABELS = {"model": "small-cnn", "defense": "none"}
SPEC = {"attack": "fgsm", "family": "linf", "threat": "linf 8/255"}


def saliency(count: int = 30, **columns: Any) -> pd.DataFrame:
    """Return rows of one explainer in one trial, two of each patient."""
    given = {
        "kind": "saliency", "family": "linf", "threat": "linf 8/255", "attack": "fgsm", "explainer": "gradcam",
        "sample_id": [f"row-{i}" for i in range(count)], "patient_id": [f"patient-{i // 2}" for i in range(count)],
        "label": 0, "clean_prediction": 0, "adversarial_prediction": 1, **MEASURES, **INSIDE, "noise_length": 1.0,
        "noise_won": False, "x": np.nan, "y": np.nan, "same_class_neighbours": np.nan, "attacked": True,
        "flipped": True, "trial": 0, **LABELS,
    }  # fmt: skip
    return pd.DataFrame(given | columns, index=range(count))


def points(count: int = 12) -> pd.DataFrame:
    """Return a map: clean rows among their own class, attacked ones among the other."""
    both = [saliency(count, kind="map", explainer="", attacked=hit, flipped=hit) for hit in (False, True)]
    frame = pd.concat(both, ignore_index=True)
    shares = np.where(frame["attacked"], 0.25, 0.75) + np.tile([0.0, 0.2], count)
    places = np.arange(2 * count, dtype=float)
    return frame.assign(x=places, y=-places, same_class_neighbours=shares, label=np.arange(2 * count) % 2)


def part(name: str, facts: dict[str, Any] | None = None, skipped: str = "", **spec: Any) -> dict[str, Any]:
    note = {"part": name, "trial": 0, "title": name, **LABELS, "spec": SPEC | spec}
    return note | ({"skipped": skipped} if skipped else {"facts": facts or {}})


COUNTS = {"studied": 50, "attacked": 40, "flipped": 30}
GRADCAM = part("p1", COUNTS | {"explained": 30, "noise_won": 0}, explainer="gradcam", title="Grad-CAM")
MAP = part("p2", COUNTS | {"features": 64}, map="t-SNE")
LIME = part("p3", skipped="lime explains scores, and the model gives decisions alone", explainer="lime", title="LIME")


def write(folder: Path, frames: list[pd.DataFrame], parts: list[dict[str, Any]]) -> None:
    if frames:
        pd.concat(frames, ignore_index=True).to_parquet(folder / "explanation.parquet")
    (folder / "explanation.json").write_text(json.dumps({"format_version": 1, "parts": parts}))


def write_arrays(folder: Path, name: str = "p1", **changes: Any) -> Path:
    image = np.linspace(0, 255, 64, dtype=np.float32).reshape(1, 1, 8, 8).repeat(2, axis=0)
    meta = {**LABELS, **SPEC, "explainer": "gradcam", "title": "Grad-CAM", "kind": "image", "value_range": [0, 255],
            "class_names": ["normal", EVIL], "feature_names": None}  # fmt: skip
    arrays = {
        **dict.fromkeys(("clean", "adversarial", "clean_saliency", "adversarial_saliency", "other_saliency"), image),
        "label": np.array([0, 0]), "clean_prediction": np.array([0, 0]), "adversarial_prediction": np.array([1, 1]),
        "sample_id": np.array(["row-0", "row-1"]), "meta": np.array(json.dumps(meta)),
    }  # fmt: skip
    path = folder / "explanation" / "examples" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(arrays | changes))
    return path


def derive(folder: Path) -> tuple[Explained, dict[str, Any]]:
    """Return the numbers, and what the template is given."""
    run = read_run(folder)
    study = read_study(run)
    found = explained(run, study)
    assert found is not None
    shown = explained_context(found, run, study)
    assert shown is not None
    return found, shown


@pytest.fixture
def folder(copy: Callable[[str], Path]) -> Path:
    return copy("single")


def test_numbers_are_means_with_intervals_over_patients(folder: Path) -> None:
    rng = np.random.default_rng(0)
    overlap = rng.uniform(0.2, 0.6, 30)
    rows = saliency(
        overlap_first=overlap, overlap_noise=overlap + 0.3, cosine_new=-0.5, noise_won=[True] + 29 * [False]
    )
    write(folder, [rows, points()], [GRADCAM, MAP, LIME])
    build(folder)
    [case] = read_data(folder)["explained"]["cases"]
    [moved] = case["moved"]
    assert moved["overlap_first"]["mean"] == pytest.approx(overlap.mean())
    assert moved["overlap_first"]["low"] < overlap.mean() < moved["overlap_first"]["high"]
    assert moved["excess"]["mean"] == pytest.approx(0.3)
    assert moved["cosine_new"] | {"sd": None} == {
        "mean": -0.5, "low": None, "high": None, "over": "", "sd": None, "n_trials": 1,
    }  # fmt: skip
    assert moved["inside_clean"]["mean"] is None
    assert (moved["rows"], moved["patients"], moved["noise_won"]) == (30, 15, 1)
    assert case["alike_clean"]["mean"] == pytest.approx(0.85)
    assert case["alike_attacked"]["mean"] == pytest.approx(0.35)
    text = read_page(folder).sections["explanations"]
    assert "Noise of the same size flipped 1 of 30" in text
    assert "Fewer than 30 patients" in text
    assert "LIME: Lime explains scores, and the model gives decisions alone." in text
    assert "64 features" in text


@pytest.mark.parametrize(("noise", "says"), [(0.9, "The attack moved"), (0.4, "It is not shown that the attack moved")])
def test_the_sentence_claims_no_more_than_the_interval_does(folder: Path, noise: float, says: str) -> None:
    spread = np.linspace(-0.1, 0.1, 30)
    write(folder, [saliency(overlap_first=0.4 + spread, overlap_noise=noise)], [GRADCAM])
    _, shown = derive(folder)
    assert says in shown["cases"][0]["statement"]


def test_nothing_flipped_and_nothing_possible_are_told(folder: Path) -> None:
    none = COUNTS | {"flipped": 0, "explained": 0, "noise_won": 0}
    write(folder, [saliency(0)], [part("p1", none, explainer="gradcam", title="Grad-CAM"), LIME])
    _, shown = derive(folder)
    assert "The decision on 0 was flipped." in shown["cases"][0]["counted"]
    assert shown["cases"][0]["overlap"] is None
    (folder / "explanation.parquet").unlink()
    write(folder, [], [LIME, part("p4", skipped="no weights") | {"spec": {}, "defense": "jpeg"}])
    build(folder)
    assert "All explanations: No weights." in read_page(folder).sections["explanations"]
    assert [one["moved"] for one in read_data(folder)["explained"]["cases"]] == [[], []]


def test_pictures_are_named_and_names_are_harmless(folder: Path) -> None:
    write(folder, [saliency()], [GRADCAM])
    write_arrays(folder)
    build(folder)
    page = read_page(folder)
    assert EVIL in page.sections["explanations"]
    assert [tag for tag, _ in page.tags].count("script") == 1
    named = [str(a["alt"]) for tag, a in page.tags if tag == "img" and "Grad-CAM" in str(a.get("alt"))]
    assert named[:2] == ["Grad-CAM: without attack, for the decision then", "Grad-CAM: attacked, for the new decision"]
    assert page.unclosed == []


def test_a_table_is_shown_by_its_heaviest_features(folder: Path) -> None:
    weight = np.array([[0.0, 3.0, -1.0]] * 2, dtype=np.float32)
    names = ["area", "texture", "radius"]
    meta = {**LABELS, **SPEC, "explainer": "gradcam", "title": "SHAP values", "kind": "table",
            "class_names": ["a", "b"], "feature_names": names}  # fmt: skip
    shaped = ("clean", "adversarial", "clean_saliency", "adversarial_saliency", "other_saliency")
    write(folder, [saliency()], [GRADCAM])
    write_arrays(folder, **dict.fromkeys(shaped, weight), meta=np.array(json.dumps(meta)))
    _, shown = derive(folder)
    [first, _] = [str(one.pictures[0].chart) for one in shown["cases"][0]["samples"]]
    assert "texture: 75.0" in first
    assert "radius: −25.0" in first
    assert "area:" not in first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": np.zeros((2, 1, 4, 4))}, "allowed is one for all"),
        ({"sample_id": np.array(["one"])}, "allowed is one for all"),
        ({"meta": np.array("{}")}, "meta lacks model"),
        ({"meta": np.array("{")}, "is damaged"),
        ({"label": np.array([object()])}, "is damaged"),
    ],
)
def test_damaged_arrays_are_refused_in_one_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    write(folder, [saliency()], [GRADCAM])
    path = write_arrays(folder, **changes)
    with pytest.raises(SpecError, match=message) as caught:
        derive(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_heat_shows_the_image_where_no_weight_is() -> None:
    image = np.full((4, 4), 0.5, dtype=np.float32)
    weight = np.zeros((4, 4), dtype=np.float32)
    weight[0, 0] = 1.0
    blended = draw._blended(image, weight)
    assert np.allclose(blended[1:], 0.5)
    assert blended[0, 0, 0] > 0.8  # the heaviest is yellow
    assert blended[0, 0, 2] < 0.3


def test_strength_is_size_whatever_the_sign_and_the_channel() -> None:
    saliency_map = np.zeros((2, 10, 10), dtype=np.float32)
    saliency_map[0, :2], saliency_map[1, 2:4] = -1.0, 0.5
    found = draw.strength(saliency_map)
    assert np.allclose(found[:2], 1)
    assert np.allclose(found[2:4], 0.5)
    assert np.allclose(found[4:], 0)
    assert np.allclose(draw.strength(np.zeros((1, 3, 3), dtype=np.float32)), 0)


def test_the_map_tells_its_marks_in_words() -> None:
    found = feature_map("m", points(), ["normal", "pneumonia", "unseen"], "Caption.")
    assert [words for _, words in found.legend] == [
        "normal, clean", "normal, attacked", "pneumonia, clean", "pneumonia, attacked",
    ]  # fmt: skip
    assert "normal: 6 clean, 6 attacked, 6 flipped" in found.drawing
