"""Poisoned trainings in the report: known numbers of hand-made rows, and what the page says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import read_data, read_page
from titer.report.build import build
from titer.report.numbers import NOTHING, Estimate
from titer.report.poisoned_rows import AtShare, Cleaning, Poison

CLEANERS = {"spectre": {"title": "Robust signatures", "paper": ""}, "loss-filter": {"title": "Losses", "paper": ""}}
POISONS: dict[str, dict[str, Any]] = {
    "patch": {"aim": "trigger", "target": "normal", "source": None, "success": (0.2, 0.96), "lost": 0.002},
    "<b>letter</b>": {"aim": "trigger", "target": "normal", "source": None, "success": (0.05, 0.1), "lost": 0.0},
    "flips": {"aim": "any", "target": None, "source": None, "success": (np.nan, np.nan), "lost": 0.05},
}
SHARES = (0.002, 0.01)


def row(trial: int, poison: str, share: float, cleaner: str) -> dict[str, Any]:
    one = POISONS[poison]
    searched = cleaner != "none"
    clean = np.nan if cleaner == "loss-filter" else 0.9 - one["lost"]
    return {
        "trial": trial, "model": "small-cnn", "defense": "none", "poison": poison, "share": share, "cleaner": cleaner,
        "rows": 1000, "changed": round(1000 * share), "clean_accuracy": clean, "clean_accuracy_before": 0.9,
        "class_accuracy": 0.8, "class_accuracy_before": 0.8, "n": 300, "n_class": 100, "n_success": 200,
        "success": 0.03 if searched else one["success"][SHARES.index(share)], "success_before": 0.02, "refused_rows": 0,
        "detection_rate": (1.0 if cleaner == "spectre" else 0.1) if searched else np.nan,
        "auroc": 0.9 if searched else np.nan, "removed": 50.0 if searched else np.nan,
        "removed_changed": round(500 * share) if searched else np.nan, "refused": "",
    }  # fmt: skip


def plant(folder: Path) -> Path:
    """Add poisoned trainings to a run folder."""
    rows = [
        row(trial, poison, share, cleaner)
        for trial in range(3)
        for share in SHARES
        for poison in POISONS
        for cleaner in ("none", *CLEANERS)
    ]
    pd.DataFrame(rows).to_parquet(folder / "poisoning.parquet")
    parts = [
        {"trial": trial, "model": "small-cnn", "defense": "none", "title": "", "part": f"{poison}{share}{trial}"}
        | {"spec": {"poison": poison}}
        | {
            "facts": {name: POISONS[poison][name] for name in ("aim", "target", "source")}
            | {"poison": poison, "title": "A poison", "paper": "Somebody", "threats": ["NISTAML.023"], "aimed": 0}
            | {"settings": {"name": "backdoor", "share": share, "size": 0.1}, "share": share}
            | {"cleaners": CLEANERS, "remove": 0.05}
        }
        for trial in range(3)
        for share in SHARES
        for poison in POISONS
    ]
    refused = {
        "trial": 0,
        "model": "small-cnn",
        "defense": "none",
        "title": "",
        "part": "no",
        "spec": {"poison": "mix"},
    }
    parts += [refused | {"trial": trial, "skipped": "rows are no tables"} for trial in range(3)]
    (folder / "poisoning.json").write_text(json.dumps({"format_version": 1, "parts": parts}))
    examples = folder / "poisoning" / "examples"
    examples.mkdir(parents=True)
    images = np.zeros((2, 1, 8, 8), dtype=np.float32)
    names = np.array(["pneumonia", "<i>odd</i>"])
    np.savez(examples / "patch0.0020.npz", before=images, after=images + 1, label_before=names, label_after=names)
    build(folder)
    return folder


@pytest.fixture(scope="module")
def folder(masters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(Path(shutil.copytree(masters["image"], tmp_path_factory.mktemp("poisoned") / "image")))


def test_numbers_are_means_over_trials(folder: Path) -> None:
    entries = {one["label"]: one for one in read_data(folder)["poisoned"]["poisons"]}
    assert list(entries) == list(POISONS)
    patch = entries["patch"]
    assert [at["share"] for at in patch["shares"]] == list(SHARES)
    assert [at["success"]["mean"] for at in patch["shares"]] == pytest.approx([0.2, 0.96])
    assert patch["shares"][1]["lost"] == pytest.approx(0.002)
    assert patch["shares"][1]["cleanings"][0]["caught"]["mean"] == pytest.approx(0.5)
    assert patch["shares"][1]["cleanings"][1]["clean"]["mean"] is None, "nothing was trained after this search"
    assert patch["trials"] == 3
    assert patch["shares"][1]["success"]["low"] < 0.96 < patch["shares"][1]["success"]["high"]
    assert entries["flips"]["shares"][0]["success"]["mean"] is None


def test_the_first_page_tells_the_backdoor_that_succeeds_and_no_other(folder: Path) -> None:
    text = " ".join(read_page(folder).sections["summary"].split())
    assert "with 1.0 % of the training rows (10 of 1 000) poisoned by “patch”" in text
    assert "answers “normal” to 96.0 %" in text
    assert "a test on clean rows does not show it" in text
    assert "robust signatures, finds 100 %" in text
    assert "<b>letter</b>" not in text
    assert "“flips”" not in text


def test_the_section_has_a_row_for_each_poison_share_and_search(folder: Path) -> None:
    text = " ".join(read_page(folder).sections["poisoning"].split())
    assert "“patch” from 1.0 %" in text
    assert "<b>letter</b>" in text, "names of the plan are text, not markup"
    assert "rows are no tables" in text
    assert "<i>odd</i>" in text
    refusals = read_data(folder)["poisoned"]["refusals"]
    assert len(refusals) == 1
    assert refusals[0][0] == "mix"


def test_a_run_without_poisons_says_nothing_of_them(masters: dict[str, Path]) -> None:
    assert read_data(masters["image"])["poisoned"] is None
    assert "poisoning" not in read_page(masters["image"]).sections


def _poison(success: float, before: float, found: float | None = None) -> tuple[Poison, AtShare]:
    search = Cleaning("s", "S", Estimate(mean=found), NOTHING, None, NOTHING, NOTHING, NOTHING, "")
    at = AtShare(0.01, 10, 1000, NOTHING, None, NOTHING, Estimate(mean=success), (search,))
    one = Poison(
        model="m", defense="none", label="p", title="P", paper="", ids=(), settings="", aim="trigger", target="t",
        source="", inputs=1, clean=NOTHING, attacked=NOTHING, success=Estimate(mean=before), shares=(at,), trials=1,
    )  # fmt: skip
    return one, at


@pytest.mark.parametrize(
    ("success", "before", "succeeds"), [(0.9, 0.1, True), (0.49, 0.0, False), (0.9, 0.6, False), (0.6, 0.2, True)]
)
def test_a_poison_succeeds_where_most_get_the_wanted_answer_because_of_it(
    success: float, before: float, succeeds: bool
) -> None:
    one, at = _poison(success, before)
    assert one.succeeds(at) is succeeds
    assert (one.cheapest is at) is succeeds


def test_the_best_search_is_the_one_that_finds_most() -> None:
    assert _poison(1.0, 0.0)[1].best is None
    _, at = _poison(1.0, 0.0, 0.4)
    assert at.best is at.cleanings[0]
