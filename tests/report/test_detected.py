"""The detectors' numbers against known answers, and what the page says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import read_data, read_page
from titer.report.build import build
from titer.report.detected_numbers import auroc, over_trials, share, thresholded, unnoticed
from titer.stats.intervals import clopper_pearson

COUNT = 100


def frame(detector: str, scores: Any, **columns: Any) -> pd.DataFrame:
    """Return rows of one trial with one patient each, alarms above 1."""
    scores = np.asarray(scores, dtype=float)
    base = {
        "part": "test", "detector": detector, "attack": "none", "threat": "none", "threat_family": "none", "eps": 0.0,
        "adaptive": False, "at_stake": False, "won": False, "trial": 0, "threshold": 1.0,
    }  # fmt: skip
    names = [f"p{row}" for row in range(len(scores))]
    rows = pd.DataFrame(base | columns | {"sample_id": names, "patient_id": names, "score": scores})
    return rows.assign(raised=~(rows["score"] <= rows["threshold"]))


def study_rows(threat: str, family: str, model: str) -> pd.DataFrame:
    """Return 100 rows at stake, 80 fooled: 60 of them noticed, but only 20 where the attacker knows the detector."""
    steps = np.linspace(0, 1, COUNT)
    attacked = {"attack": "pgd", "threat": threat, "threat_family": family, "at_stake": True}
    won = np.arange(COUNT) < 80
    parts = [
        frame("shift", steps, part="validation"),
        frame("shift", np.where(np.arange(COUNT) < 5, 2.0, 0.5)),
        frame("shift", np.where(np.arange(COUNT) < 60, 2.0, 0.9), won=won, **attacked),
        frame("shift", np.where(np.arange(COUNT) < 20, 2.0, 0.9), won=won, adaptive=True, **attacked),
    ]
    return pd.concat(parts, ignore_index=True).assign(model=model, defense="none")


def parts(model: str, reason: str = "") -> list[dict[str, Any]]:
    """Return the notes of a study with one detector, and one that could not be fitted."""
    latency = {"alone_ms": 1.0, "guarded_ms": 1.3, "ratio": 1.3}
    said = [
        {"label": "shift", "name": "shift", "title": "Mahalanobis distance", "latency": latency},
        {"label": "my own", "name": "nearest-neighbour", "title": "Neighbours", "refused": "needs 51 training rows"},
    ]
    first = {"title": "detectors, no attack", "spec": {}, "facts": {"rate": 0.05, "detectors": said}}
    other = {
        "title": "pgd, evading nearest-neighbour",
        "spec": {"label": "nearest-neighbour"},
        "skipped": reason or "no",
    }
    return [
        {"trial": 0, "model": model, "defense": "none", "part": str(n)} | one for n, one in enumerate([first, other])
    ]


@pytest.fixture
def watched(copy: Callable[[str], Path]) -> Path:
    """Return a run folder with a detection study."""
    folder = copy("single")
    manifest = json.loads((folder / "manifest.json").read_text())
    threat, model = manifest["threats"][-1], manifest["models"][0]["label"]
    study_rows(threat["label"], threat["family"], model).to_parquet(folder / "detection.parquet")
    (folder / "detection.json").write_text(json.dumps({"format_version": 1, "parts": parts(model)}))
    return folder


def test_known_shares_with_their_intervals(watched: Path) -> None:
    build(watched)
    data = read_data(watched)
    one = next(each for each in data["detected"]["caught"] if each["attack"] == "pgd")
    assert one["finds"] == 80
    assert one["success"]["mean"] == pytest.approx(0.8)
    assert one["caught"]["0.05"]["mean"] == pytest.approx(60 / 80)
    assert one["unnoticed"]["mean"] == pytest.approx(0.2)
    assert one["adaptive"]["mean"] == pytest.approx(0.6)
    assert one["adaptive"]["low"] < 0.6 < one["adaptive"]["high"]
    own = next(each for each in data["detected"]["watched"] if each["detector"] == "shift")
    assert own["alarms"]["0.05"]["mean"] == pytest.approx(0.05)
    exact = clopper_pearson(5, COUNT)
    assert own["alarms"]["0.05"]["high"] == pytest.approx(exact.high)
    assert own["holds"] is True
    assert own["ratio"]["mean"] == pytest.approx(1.3)


def test_the_page_sets_both_attackers_side_by_side(watched: Path) -> None:
    build(watched)
    page, text = read_page(watched), (watched / "report.html").read_text()
    assert "is no protection once it is known" in page.sections["detection"]
    assert "my own is left out: needs 51 training rows" in page.sections["detection"]
    assert "Shift, mahalanobis distance" in page.sections["detection"]
    assert "75.0" in page.sections["detection"]
    assert "60.0" in page.sections["detection"]
    assert "The detector “Shift” catches 75.0" in page.sections["summary"]
    assert "One who does gets 60.0" in page.sections["summary"]
    assert "None" not in page.sections["detection"]
    assert "nan" not in page.sections["detection"].lower()
    assert page.unclosed == []
    assert text.count('href="#detection"') == 1


def test_more_false_alarms_than_stated_are_called_out(watched: Path) -> None:
    rows = pd.read_parquet(watched / "detection.parquet")
    clean = (rows["part"] == "test") & (rows["attack"] == "none")
    rows.loc[clean, "raised"] = np.arange(COUNT) < 20
    rows.to_parquet(watched / "detection.parquet")
    build(watched)
    own = next(each for each in read_data(watched)["detected"]["watched"] if each["detector"] == "shift")
    assert own["holds"] is False
    section = read_page(watched).sections["detection"]
    assert "more alarms than stated" in section
    assert "200 (" in section
    assert "where 50 were stated" in read_page(watched).sections["summary"]


def test_a_study_of_which_nothing_could_run_says_why(watched: Path) -> None:
    skipped = [{"part": "0", "model": "m", "defense": "none", "title": "none", "spec": {}, "skipped": "no network"}]
    (watched / "detection.json").write_text(json.dumps({"format_version": 1, "parts": skipped}))
    (watched / "detection.parquet").unlink()
    build(watched)
    section = read_page(watched).sections["detection"]
    assert "No detector could be measured" in section
    assert "no network" in section


def test_nobody_who_knows_is_not_taken_for_nobody_gets_through(watched: Path) -> None:
    rows = pd.read_parquet(watched / "detection.parquet")
    rows[~rows["adaptive"]].to_parquet(watched / "detection.parquet")
    content = json.loads((watched / "detection.json").read_text())
    content["parts"][1] |= {"spec": {"label": "shift"}, "skipped": "inputs are held back from models of classes"}
    (watched / "detection.json").write_text(json.dumps(content))
    build(watched)
    one = next(each for each in read_data(watched)["detected"]["caught"] if each["attack"] == "worst-case")
    assert one["adaptive"]["mean"] is None
    assert one["reason"] == "inputs are held back from models of classes"
    page = read_page(watched)
    assert "not tried: inputs are held back" in page.sections["detection"]
    assert "do not count on this" in page.sections["summary"]


def test_other_rates_have_thresholds_of_their_own() -> None:
    rows = frame("a", np.arange(99.0), part="validation")
    finds = frame("a", [93.0, 94.5, 97.5, 98.5])
    assert thresholded(finds, rows, 0.05)["alarm"].tolist() == [False, True, True, True]
    assert thresholded(finds, rows, 0.01)["alarm"].tolist() == [False, False, False, True]
    assert not len(thresholded(finds, rows.iloc[:50], 0.01)), "50 rows are too few for 1 %"
    assert share(thresholded(finds, rows.iloc[:50], 0.01)).mean is None


def test_a_row_is_lost_where_any_attack_gets_through() -> None:
    one = frame("a", [0.0, 2.0, 0.0], won=[True, True, False], at_stake=True, attack="one")
    other = frame("a", [2.0, 0.0, 2.0], won=[True, True, True], at_stake=True, attack="two")
    assert unnoticed(one).mean == pytest.approx(1 / 3)
    assert unnoticed(pd.concat([one, other])).mean == pytest.approx(2 / 3)
    assert unnoticed(pd.concat([one, other]), watching=False).mean == pytest.approx(1.0)
    assert unnoticed(one.assign(at_stake=False)).mean is None


def test_scores_of_two_trials_are_never_compared() -> None:
    """Each trial separates perfectly on a scale of its own; pooled, they would not."""
    rng = np.random.default_rng(0)
    clean, finds = [], []
    for trial, shift in enumerate((0.0, 100.0)):
        clean.append(frame("a", shift + rng.normal(size=40), trial=trial))
        finds.append(frame("a", shift + 1.0 + rng.normal(size=40), trial=trial))
    found = auroc(pd.concat(clean), pd.concat(finds))
    assert found.mean == pytest.approx(0.76, abs=0.1)
    assert found.low is not None
    assert found.low < (found.mean or 0.0)
    assert found.n_trials == 2


def test_one_trial_has_no_interval_over_trials() -> None:
    assert over_trials([1.3]).low is None
    found = over_trials([1.2, 1.3, 1.4])
    assert found.mean == pytest.approx(1.3)
    assert found.low is not None
    assert found.low < 1.3
    assert over_trials([]).mean is None
