"""Poisoning of a plan: what is kept of each poisoned training, what resumes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tests.assess.plans import tiny
from tests.report.reading import read_data, read_page

from titer.assess.plan_checks import check_against
from titer.assess.poisoning_measures import aim_of, counted, judged, measured
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.core.model import network_model
from titer.core.protocols import Poisoned
from titer.core.record import Samples
from titer.report.build import build
from titer.threats.rules import Box

POISONED = """
name = "poisoned"
trials = 1
seed = 7
attacks = ["fgsm"]

[data]
name = "cytology"

[training]
epochs = 10
batch_size = 32
learning_rate = 0.01

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [16] }

[[threats]]
norm = "linf"
eps = [0.25]
unit = "sd"

[[defenses]]
label = "distilled"
defense = { name = "distillation", temperature = 20 }

[poisoning]
poisons = [
  { name = "backdoor", trigger = "spike", target = "benign", label = "shifted features" },
  { name = "label-flip", source = "malignant", target = "benign" },
  { name = "gradient-matching", eps = 0.5, unit = "sd", target = "benign", steps = 2, samples = 2 },
  { name = "backdoor", label = "a picture in a table" },
]
shares = [0.1, 0.001]
cleaners = ["spectral-signatures", "loss-filter"]
retrain = ["spectral-signatures"]
rows = 60
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("poisoned")
    out = assess(tiny(base, POISONED), base / "out", workers=1)
    build(out)
    return out


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "poisoning.parquet")


def parts_of(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "poisoning.json").read_text())["parts"])


def test_each_poison_has_its_training_and_each_search_once(rows: pd.DataFrame) -> None:
    keys = ["trial", "model", "defense", "poison", "share", "cleaner"]
    assert not rows.duplicated(keys).any()
    assert set(rows["defense"]) == {"none"}, "the undefended model alone, where the plan names no other"
    assert set(rows["trial"]) == {0}
    found = rows.groupby(["trial", "poison", "share"])["cleaner"].agg(list)
    assert all(one == ["none", "spectral-signatures", "loss-filter"] for one in found)
    assert set(rows["poison"]) == {"shifted features", "label-flip", "gradient-matching"}
    assert set(rows["share"]) == {0.1}


def test_shares_are_shares(rows: pd.DataFrame) -> None:
    for name in ("clean_accuracy", "success", "detection_rate", "auroc", "class_accuracy", "success_before"):
        assert rows[name].dropna().between(0, 1).all()
    assert (rows["changed"] == (0.1 * rows["rows"]).round()).all()
    searched = rows.dropna(subset=["removed"])
    assert (searched["removed_changed"] <= searched["removed"]).all()
    assert (searched["removed"] <= (0.05 * searched["rows"]).round()).all()


def test_a_backdoor_is_answered_after_the_poisoning_and_not_before(rows: pd.DataFrame) -> None:
    bare = rows[(rows["poison"] == "shifted features") & (rows["cleaner"] == "none")]
    assert (bare["success"] > 0.8).all()
    assert (bare["success_before"] < 0.3).all()
    assert (bare["clean_accuracy_before"] - bare["clean_accuracy"] < 0.1).all()


def test_only_the_searches_that_the_plan_names_are_followed_by_a_training(rows: pd.DataFrame) -> None:
    assert rows.loc[rows["cleaner"] == "spectral-signatures", "clean_accuracy"].notna().all()
    assert rows.loc[rows["cleaner"] == "loss-filter", "clean_accuracy"].isna().all()
    assert rows.loc[rows["cleaner"] == "loss-filter", "detection_rate"].notna().all()


def test_what_cannot_be_poisoned_is_kept_with_its_reason(folder: Path) -> None:
    reasons = {
        (one["spec"]["poison"], one["spec"]["share"]): one["skipped"] for one in parts_of(folder) if "skipped" in one
    }
    assert "needs an image or a signal" in reasons["a picture in a table", 0.1]
    assert "training rows is no row" in reasons["label-flip", 0.001]


def test_facts_say_what_the_attacker_wants(folder: Path) -> None:
    facts = {one["facts"]["poison"]: one["facts"] for one in parts_of(folder) if "facts" in one}
    assert {name: one["aim"] for name, one in facts.items()} == {
        "shifted features": "trigger", "label-flip": "pair", "gradient-matching": "aimed",
    }  # fmt: skip
    assert all(one["target"] == "benign" for one in facts.values())
    assert facts["label-flip"]["source"] == "malignant"
    assert facts["gradient-matching"]["aimed"] == 2


def test_a_second_call_does_nothing_again_and_one_more_share_is_added(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "poisoning" / "cells").iterdir()}
    assess(tiny(tmp_path, POISONED.replace("0.001]", "0.05]")), folder, workers=1)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "poisoning" / "cells").iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(pd.read_parquet(folder / "poisoning.parquet")["share"]) == {0.05, 0.1}
    assess(tiny(tmp_path, POISONED), folder, workers=1)
    build(folder)


def test_the_report_says_so_on_its_first_page(folder: Path) -> None:
    page = read_page(folder)
    text = " ".join(page.sections["summary"].split())
    assert "Poisoned training data: with" in text
    assert "“shifted features”" in text
    assert "“benign”" in text
    assert "a picture in a table" in page.sections["poisoning"]
    entries = read_data(folder)["poisoned"]["poisons"]
    assert [one["label"] for one in entries] == ["shifted features", "label-flip", "gradient-matching"]
    assert entries[0]["shares"][0]["cleanings"][0]["found"]["mean"] is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'target = "benign", label',
            'target = "bening", label',
            "target = 'bening' is not known: allowed are benign, malignant",
        ),
        ('target = "benign", label', "target = 2, label", "target = 2 is not allowed: classes are 0 to 1"),
        ('unit = "sd", target', 'unit = "mV", target', "unit = 'mV' is not known: allowed are sd"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_anything_runs(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    plan = tiny(tmp_path, POISONED.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as error:
        check_against(plan, plan.load_data())
    assert str(error.value).startswith("poisoning.poisons[")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shares = [0.1, 0.001]", "shares = [0.0]", "poisoning.shares.0 = 0.0 is not allowed"),
        ("shares = [0.1, 0.001]", "shares = [0.1, 0.1]", "names a share twice"),
        ("shares = [0.1, 0.001]", "shares = []", "poisoning.shares"),
        ('"label-flip", source', '"label-flip", share = 0.1, source', "poisoning.shares says it for all"),
        ('"label-flip", source', '"label-flop", source', "did you mean 'label-flip'"),
        ('["spectral-signatures", "loss-filter"]', '["spectral-signature"]', "did you mean 'spectral-signatures'"),
        ('retrain = ["spectral-signatures"]', 'retrain = ["spectre"]', "poisoning.retrain = 'spectre' is not known"),
        ("rows = 60", 'rows = 60\ndefenses = ["distiled"]', "did you mean 'distilled'"),
        ("rows = 60", "rows = 60\nshare = 0.1", "poisoning.share = 0.1 is not a known key"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in POISONED
    with pytest.raises(SpecError, match=message) as error:
        tiny(tmp_path, POISONED.replace(old, new, 1))
    assert "\n" not in str(error.value)


def _rows() -> Samples:
    ids = tuple("abcdef")
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    return Samples(x=torch.arange(6.0).view(6, 1), y=y, ids=ids, patients=("p", "p", "q", "r", "s", "s"))


def _reader() -> Any:
    """A model that says the number it is shown, modulo 3."""
    model = network_model("reader", torch.nn.Identity(), lambda x: x, {})
    return replace(model, logits=lambda x: torch.nn.functional.one_hot(x[:, 0].long() % 3, 3).float())


def test_success_is_of_rows_that_are_not_of_the_target_and_carry_the_trigger_inside_the_domain() -> None:
    test, marks = _rows(), torch.zeros(6, dtype=torch.bool)
    found = Poisoned(samples=test, changed=marks, trigger=lambda x: x + 4, target=0)
    on = judged(found, test, (Box(low=0.0, high=8.0),), 0)
    assert on.shown.flatten().tolist() == [6.0, 7.0, 8.0], "5 + 4 is outside, and class 0 is there anyway"
    assert on.patients == ("q", "r", "s")
    assert measured(_reader(), on)["success"] == pytest.approx(1 / 3)
    assert counted(on) == {"n": 4, "n_class": 1, "n_success": 3, "refused_rows": 1}


def test_of_a_pair_success_is_of_the_source_as_it_is() -> None:
    test = _rows()
    found = Poisoned(samples=test, changed=torch.zeros(6, dtype=torch.bool), target=2, source=1)
    on = judged(found, test, (), 0)
    assert aim_of(found) == "pair"
    assert on.shown.flatten().tolist() == [2.0, 3.0]
    told = measured(_reader(), on)
    assert told["success"] == 0.5
    assert told["class_accuracy"] == 0.0
    assert told["clean_accuracy"] == pytest.approx(1 / 3), "rows 0 and 5"


def test_where_any_error_will_do_there_is_no_success() -> None:
    test = _rows()
    found = Poisoned(samples=test, changed=torch.zeros(6, dtype=torch.bool))
    told = measured(_reader(), judged(found, test, (), 0))
    assert aim_of(found) == "any"
    assert told["success"] != told["success"], "NaN"
    assert told["class_accuracy"] != told["class_accuracy"]
