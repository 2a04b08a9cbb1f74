"""Goals in clinical words, sensitivity and specificity per goal, and outputs that are no class."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.build import build
from titer.report.goals import at_stake, goal_class, goal_words, rates
from titer.report.load import read_run
from titer.report.numbers import Numbers
from titer.report.study import Study, read_study
from titer.report.tallies import tally


@pytest.fixture
def brain(masters: dict[str, Path]) -> Study:
    return read_study(read_run(masters["brain"]))


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ("any-error", "any error: a wrong answer of whatever kind"),
        ("hide:malignant", "hide a finding: malignant → benign"),
        ("invent:malignant", "invent a finding: benign → malignant"),
        ("targeted:benign", "force one answer: malignant → benign"),
        ("shrink-mask", "shrink mask"),
    ],
)
def test_goals_are_told_in_clinical_words(brain: Study, goal: str, words: str) -> None:
    assert goal_words(goal, replace(brain, classes=("benign", "malignant"))) == words


def test_findings_are_present_or_absent_and_several_classes_have_others(brain: Study) -> None:
    assert goal_words("hide:glioma", brain) == "hide a finding: glioma → any other answer"
    findings = replace(brain, output="labels", classes=("edema", "mass"))
    assert goal_words("hide:edema", findings) == "hide a finding: edema present → absent"
    assert goal_words("invent:mass", findings) == "invent a finding: mass absent → present"
    assert goal_words("any-error", findings) == "any error: a finding hidden or invented, whichever"


def shift_of(folder: Path, family: str, defense: str) -> dict[str, Any]:
    rows = read_data(folder)["error_shifts"]
    return next(row for row in rows if (row["family"], row["defense"]) == (family, defense))


@pytest.mark.parametrize("defense", ["none", "adversarial-training", "jpeg"])
def test_rates_of_a_goal_are_those_of_its_class(masters: dict[str, Path], defense: str) -> None:
    table = pd.read_parquet(masters["brain"] / "outcomes.parquet")
    mine = table[(table["defense"] == defense) & (table["source"] == defense)]
    clean = mine[mine["attack"] == "none"]
    ill, named = clean["label"] == 0, clean["clean_prediction"] == 0
    found = named[ill].groupby(clean["trial"]).mean().mean()
    cleared = (~named[~ill]).groupby(clean["trial"]).mean().mean()
    for family, attacked in (("hide glioma", "sensitivity"), ("invent glioma", "specificity")):
        row = shift_of(masters["brain"], family, defense)
        assert row["about"] == "glioma"
        assert row["sensitivity_clean"]["mean"] == pytest.approx(found)
        assert row["specificity_clean"]["mean"] == pytest.approx(cleared)
        hit = mine[(mine["threat"] == f"{family} 8/255") & mine["eligible"]]
        lost = hit.groupby(["trial", "sample_id"])["won"].any().groupby("trial").mean().mean()
        assert row[f"{attacked}_attacked"]["mean"] == pytest.approx(1 - lost)
        other = {"sensitivity": "specificity", "specificity": "sensitivity"}[attacked]
        assert row[f"{other}_attacked"] == row[f"{other}_clean"]


def test_the_page_tells_each_goal(masters: dict[str, Path]) -> None:
    page = read_page(masters["brain"])
    errors, first = page.sections["errors"], page.sections["summary"]
    assert "The attacker wants: hide a finding: glioma → any other answer" in errors
    assert "for “glioma” against all others" in errors
    assert "any error: a wrong answer of whatever kind" in errors
    assert "meant to hide “glioma”, by an attacker" in first
    assert "Of the patients with “glioma” it is right on" in first
    assert "Right, % of patients without “glioma” (95 % CI)" in first
    assert "meant to" not in page.sections["threats"]


def test_errors_take_the_place_of_sensitivity(masters: dict[str, Path]) -> None:
    data, page = read_data(masters["age"]), read_page(masters["age"])
    metrics = pd.read_parquet(masters["age"] / "metrics.parquet")
    whole = metrics[(metrics["group"] == "all") & (metrics["source"] == metrics["defense"])]
    assert data["error_shifts"] == []
    assert [row["defense"] for row in data["errors"]] == ["none", "adversarial-training"]
    for row in data["errors"]:
        mine = whole[whole["defense"] == row["defense"]].groupby("attack")
        assert row["clean"]["mean"] == pytest.approx(mine["clean_error"].mean()["none"])
        assert row["attacked"]["mean"] == pytest.approx(mine["adversarial_error"].mean()["worst-case"])
        assert row["attacked"]["low"] < row["attacked"]["mean"] < row["attacked"]["high"]
    assert "Mean absolute error, months" in page.sections["errors"]
    assert "Sensitivity" not in page.sections["errors"]
    assert "The mean error (absolute error, months) is" in page.sections["summary"]
    assert "output: a value" in page.sections["summary"]


def test_the_tolerance_is_named_where_the_run_knows_it(copy: Any) -> None:
    folder = copy("age")
    change_json(folder / "manifest.json", lambda content: content["data"].update(tolerance=12.0))
    build(folder)
    assert "off by at most 12 months" in read_page(folder).sections["errors"]


def test_errors_without_a_named_output_are_errors_all_the_same(copy: Any) -> None:
    folder = copy("age")
    change_json(folder / "manifest.json", lambda content: content["data"].pop("output") and None)
    build(folder)
    assert read_data(folder)["study"]["output"] == "other"
    assert "Mean error, months" in read_page(folder).sections["errors"]


def test_cells_of_an_older_version_may_stand_beside_newer_ones(copy: Any) -> None:
    folder = copy("brain")
    before = read_data(folder)
    table = pd.read_parquet(folder / "outcomes.parquet").astype({"eligible": object})
    older = table["goal"] == "any-error"
    table.loc[older, ["goal", "eligible"]] = None
    table.to_parquet(folder / "outcomes.parquet")
    build(folder)
    assert read_data(folder) == before


def as_findings(table: pd.DataFrame) -> pd.DataFrame:
    """Tell the same rows as a model of findings does: of a goal's one finding, elsewhere right or wrong as a whole."""
    found, about = table.copy(), table["goal"] != "any-error"
    for name in ("clean_prediction", "adversarial_prediction"):
        found[name] = (table[name] == 0).where(about, table[name] != table["label"]).astype(int)
    return found.assign(label=(about & (table["label"] == 0)).astype(int))


@pytest.mark.parametrize("defense", ["none", "jpeg"])
@pytest.mark.parametrize("family", ["hide glioma", "invent glioma"])
def test_a_finding_has_the_rates_of_the_same_class_told_as_one_of_several(
    masters: dict[str, Path], brain: Study, family: str, defense: str
) -> None:
    run = read_run(masters["brain"])
    findings, told = replace(brain, output="labels"), replace(run, outcomes=as_findings(run.outcomes))
    numbers, threat = Numbers(run), brain.largest(family)
    # tables of an older version, which had no rates of findings: all is counted off the rows
    blank = run.metrics.assign(sensitivity=math.nan, specificity=math.nan)
    older = Numbers(replace(told, metrics=blank, statistics={"summary": []}))
    by_class, by_finding = tally(run, brain), tally(told, findings)
    rest = (brain.models[0], defense, threat)
    expected = rates(brain, numbers, by_class, *rest)
    assert expected.sensitivity_clean.mean is not None
    assert rates(findings, older, by_finding, *rest) == expected
    assert at_stake(findings, by_finding, *rest) == at_stake(brain, by_class, *rest)


def test_a_mask_has_no_class_that_a_goal_is_about(brain: Study) -> None:
    assert goal_class("hide:glioma", replace(brain, output="labels")) == 0
    assert goal_class("hide:glioma", replace(brain, output="mask")) is None
    assert goal_class("any-error", replace(brain, output="labels")) is None
