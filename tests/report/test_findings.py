"""Several findings a patient: the finding that a goal is about has its rates, beside the number of wrong findings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.before import stated
from titer.report.build import build
from titer.report.format import percent
from titer.report.numbers import Estimate

GOALS = {"hide nodule": "nodule", "invent mass": "mass"}
DEFENSES = ["none", "adversarial-training", "jpeg"]
WORST = "worst-case"


def outcomes_of(folder: Path, family: str, defense: str) -> pd.DataFrame:
    table = pd.read_parquet(folder / "outcomes.parquet")
    mine = (table["threat"] == f"{family} 8/255") & (table["defense"] == defense) & (table["source"] == defense)
    return table[mine]


def clean_rates(rows: pd.DataFrame) -> tuple[float, float]:
    """Sensitivity and specificity of the one finding without attack, mean over trials."""
    once = rows[rows["attack"] == rows["attack"].iloc[0]]
    right = once["clean_prediction"] == once["label"]
    shares = right.groupby([once["label"], once["trial"]]).mean().groupby("label").mean()
    return float(shares[1]), float(shares[0])


def before_after(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = json.loads((folder / "statistics.json").read_text())["before_after"]
    return {(row["defense"], row["attack"], row["threat"]): row for row in rows}


def test_only_goals_about_one_finding_have_rates(masters: dict[str, Path]) -> None:
    data = read_data(masters["findings"])
    rows = [(row["family"], row["about"], row["defense"]) for row in data["error_shifts"]]
    assert rows == [(family, about, defense) for family, about in GOALS.items() for defense in DEFENSES]
    assert {row["family"] for row in data["errors"]} == {"linf", *GOALS}


@pytest.mark.parametrize("defense", DEFENSES)
@pytest.mark.parametrize("family", GOALS)
def test_the_rates_are_those_of_the_metrics(masters: dict[str, Path], family: str, defense: str) -> None:
    folder = masters["findings"]
    metrics = pd.read_parquet(folder / "metrics.parquet")
    mine = (metrics["attack"] == WORST) & (metrics["threat"] == f"{family} 8/255") & (metrics["group"] == "all")
    expected = metrics[mine & (metrics["defense"] == defense)][["sensitivity", "specificity"]].mean()
    shift = next(
        row for row in read_data(folder)["error_shifts"] if (row["family"], row["defense"]) == (family, defense)
    )
    found, cleared = clean_rates(outcomes_of(folder, family, defense))
    for name, clean in (("sensitivity", found), ("specificity", cleared)):
        attacked = shift[f"{name}_attacked"]
        assert attacked["mean"] == pytest.approx(expected[name])
        assert attacked["low"] < attacked["mean"] < attacked["high"]
        assert shift[f"{name}_clean"]["mean"] == pytest.approx(clean)
    spared = "specificity" if family.startswith("hide") else "sensitivity"
    hit = "sensitivity" if spared == "specificity" else "specificity"
    assert shift[f"{spared}_attacked"]["mean"] == pytest.approx(shift[f"{spared}_clean"]["mean"])
    assert shift[f"{hit}_attacked"]["mean"] < shift[f"{hit}_clean"]["mean"]


def test_metrics_that_differ_from_the_rows_are_believed() -> None:
    counted = Estimate(mean=0.5, low=0.4, high=0.6)
    assert stated(None, counted) == counted
    assert stated(0.5, counted) is counted
    assert stated(0.55, counted) == Estimate(mean=0.55, low=0.4, high=0.6)
    assert stated(0.9, counted) == Estimate(mean=0.9)


def test_the_page_shows_errors_and_rates(masters: dict[str, Path]) -> None:
    page, data = read_page(masters["findings"]).sections["errors"], read_data(masters["findings"])
    assert page.count("Mean wrong findings per row, without attack and in the worst case under") == 3
    for family, about in GOALS.items():
        caption = f"Sensitivity and specificity for the finding “{about}” without attack and in the worst case under"
        assert f"{caption} {family} 8/255" in page
    assert page.count("Sensitivity and specificity for the finding") == 2
    assert "Positives are the patients with “nodule”. Under this goal only those are attacked: the specificity" in page
    assert (
        "Positives are the patients with “mass”. Under this goal only the others are attacked: the sensitivity" in page
    )
    assert "against all others" not in page
    assert "there is no sensitivity" not in page
    for row in data["error_shifts"]:
        assert row["missed"] in page
        assert row["alarms"] in page
        assert percent(row["sensitivity_attacked"]["mean"]) in page


@pytest.mark.parametrize(
    ("family", "words", "rate"),
    [
        ("hide nodule", "“nodule” is missed in {} (95 % CI", "sensitivity"),
        ("invent mass", "“mass” is falsely reported in {} (95 % CI", "specificity"),
    ],
)
def test_the_verdict_tells_what_becomes_of_the_patients(
    masters: dict[str, Path], family: str, words: str, rate: str
) -> None:
    data = read_data(masters["findings"])
    sentence = next(one["sentence"] for one in data["verdicts"] if one["family"] == family).replace("\xa0", " ")
    shift = next(row for row in data["error_shifts"] if (row["family"], row["defense"]) == (family, "none"))
    share, clean = (percent(1 - shift[f"{rate}_{when}"]["mean"]).replace("\xa0", " ") for when in ("attacked", "clean"))
    assert words.format(share) in sentence
    assert f"of the patients {'with' if family.startswith('hide') else 'without'} it, instead of {clean}" in sentence
    assert f"the undefended model is right about “{GOALS[family]}” on" in sentence
    assert "The mean error (wrong findings per row) is" in sentence


def test_any_error_is_about_the_whole_report(masters: dict[str, Path]) -> None:
    sentence = next(v["sentence"] for v in read_data(masters["findings"])["verdicts"] if v["family"] == "linf")
    assert "the undefended model is right on" in sentence
    assert "missed" not in sentence
    assert "The mean error (wrong findings per row) is" in sentence


@pytest.mark.parametrize("name", ["findings", "brain", "age", "image", "table"])
def test_clean_numbers_are_those_that_the_statistics_set_the_attack_against(
    masters: dict[str, Path], name: str
) -> None:
    data, stands = read_data(masters[name]), before_after(masters[name])
    for verdict in data["verdicts"]:
        expected = stands["none", WORST, verdict["threat"]]
        assert verdict["clean"]["mean"] == pytest.approx(expected["clean_mean"], abs=1e-12)
        assert verdict["attacked"]["mean"] == pytest.approx(expected["attacked_mean"], abs=1e-12)
        assert verdict["clean"]["low"] is not None
    largest = {verdict["family"]: verdict["threat"] for verdict in data["verdicts"]}
    for row in data["defenses"]:
        expected = stands[row["defense"], WORST, largest[row["family"]]]
        assert row["clean"]["mean"] == pytest.approx(expected["clean_mean"], abs=1e-12)
    for point in data["headline"]:
        expected = stands[point["defense"], WORST, point["threat"]]
        assert point["clean_accuracy"]["mean"] == pytest.approx(expected["clean_mean"], abs=1e-12)


def test_a_goal_about_one_finding_is_not_set_against_whole_reports(masters: dict[str, Path]) -> None:
    data = read_data(masters["findings"])
    clean = {verdict["family"]: verdict["clean"]["mean"] for verdict in data["verdicts"]}
    assert clean["hide nodule"] > clean["linf"], "right about one finding is easier than right about all"
    rows = outcomes_of(masters["findings"], "hide nodule", "none")
    right = (rows["clean_prediction"] == rows["label"]).groupby(rows["trial"]).mean().mean()
    assert clean["hide nodule"] == pytest.approx(right)


def test_without_the_statistics_the_clean_number_is_counted(copy: Any) -> None:
    folder = copy("findings")
    before = {one["family"]: one["clean"] for one in read_data(folder)["verdicts"]}
    change_json(folder / "statistics.json", lambda content: content.update(before_after=[]))
    build(folder)
    assert {one["family"]: one["clean"] for one in read_data(folder)["verdicts"]} == before


def test_where_trials_are_missing_the_clean_number_is_of_the_same_trials(copy: Any) -> None:
    """Attacked in one trial of three: what the attack took is told against that trial's own clean rows."""
    from titer.stats import tables
    from titer.stats.protocol import analyse

    folder = copy("brain")
    table = pd.read_parquet(folder / "outcomes.parquet")
    table = table[(table["attack"] == "none") | (table["trial"] == 0)]
    metrics = tables.metrics(table, positive=None, classes=4)
    table.to_parquet(folder / "outcomes.parquet")
    metrics.to_parquet(folder / "metrics.parquet")
    (folder / "statistics.json").write_text(json.dumps({"format_version": 1} | analyse(table, metrics)))
    build(folder)
    clean = table[(table["attack"] == "none") & (table["defense"] == "none") & (table["trial"] == 0)]
    right = float((clean["clean_prediction"] == clean["label"]).mean())
    assert [one["clean"]["mean"] for one in read_data(folder)["verdicts"]] == pytest.approx([right] * 3)


def test_a_defence_that_misses_more_of_the_finding_is_called_out(copy: Any) -> None:
    folder = copy("findings")
    before = next(one for one in read_data(folder)["verdicts"] if one["family"] == "hide nodule")
    assert before["notes"] == []
    table = pd.read_parquet(folder / "outcomes.parquet")
    mine = (table["threat_family"] == "hide nodule") & (table["defense"] == before["best"]) & (table["label"] == 1)
    table.loc[mine, ["clean_prediction", "adversarial_prediction"]] = 0
    table.to_parquet(folder / "outcomes.parquet")
    build(folder)
    (note,) = next(one for one in read_data(folder)["verdicts"] if one["family"] == "hide nodule")["notes"]
    assert "the model misses more findings “nodule”: 100 of 100 without attack" in note


def test_subgroups_tell_the_finding_before_and_after(masters: dict[str, Path]) -> None:
    folder = masters["findings"]
    rows = outcomes_of(folder, "hide nodule", "none")
    rows = rows[(rows["attack"] == "pgd") & (rows["group:sex"] == "female")]
    ill = rows[rows["label"] == 1]
    metrics = pd.read_parquet(folder / "metrics.parquet")
    worst = metrics[(metrics["attack"] == WORST) & (metrics["defense"] == "none") & (metrics["value"] == "female")]
    worst = worst[worst["threat"] == "hide nodule 8/255"]
    data = read_data(folder)["subgroups"]
    keys = {"defense": "none", "threat": "hide nodule 8/255", "value": "female"}
    (row,) = [one for one in data if all(one[key] == value for key, value in keys.items())]
    right = rows["clean_prediction"] == rows["label"]
    assert row["clean"]["mean"] == pytest.approx(right.groupby(rows["trial"]).mean().mean())
    found = (ill["clean_prediction"] == 1).groupby(ill["trial"]).mean().mean()
    assert row["sensitivity_clean"]["mean"] == pytest.approx(found)
    assert row["sensitivity_robust"]["mean"] == pytest.approx(worst["sensitivity"].mean())
    assert row["robust"]["mean"] == pytest.approx(worst["accuracy"].mean())
    any_error = [one for one in data if one["threat"] == "linf 8/255"]
    assert any_error
    assert all(one["sensitivity_robust"]["mean"] is None for one in any_error)


def test_intervals_of_subgroups_rest_on_the_positives_of_the_metrics(masters: dict[str, Path]) -> None:
    from titer.report.shares import wilson

    folder = masters["findings"]
    metrics = pd.read_parquet(folder / "metrics.parquet")
    worst = metrics[(metrics["attack"] == WORST) & (metrics["defense"] == "none") & (metrics["group"] == "all")]
    positives = float(worst[worst["threat"] == "hide nodule 8/255"]["n_positive"].mean())
    keys = {"defense": "none", "threat": "hide nodule 8/255", "group": "all"}
    (row,) = [one for one in read_data(folder)["subgroups"] if all(one[key] == value for key, value in keys.items())]
    robust = row["sensitivity_robust"]
    low, high = wilson(pd.Series([robust["mean"]]).to_numpy(), positives)
    assert (robust["low"], robust["high"]) == pytest.approx((float(low[0]), float(high[0])))


def test_an_example_shows_what_became_of_the_finding(copy: Any) -> None:
    folder = copy("findings")
    meta = {"model": "small-cnn", "defense": "none", "source": "none", "attack": "pgd", "norm": "linf", "eps": 8.0}
    meta |= {"unit": "/255", "kind": "image", "channels_first": True, "value_range": [0, 255]}
    (folder / "examples").mkdir()
    for family, names, label in (("hide nodule", ["absent", "present"], 1), ("linf", ["as it should be", "wrong"], 0)):
        own = {"threat": f"{family} 8/255", "threat_family": family, "class_names": names}
        image = np.full((1, 1, 8, 8), 90, dtype=np.float32)
        np.savez(
            folder / "examples" / f"{family}.npz",
            clean=image,
            adversarial=image + 8,
            label=np.array([label]),
            clean_prediction=np.array([label]),
            adversarial_prediction=np.array([1 - label]),
            sample_id=np.array(["0-0000"]),
            meta=np.array(json.dumps(meta | own)),
        )
    build(folder)
    page = read_page(folder).sections["examples"]
    assert "nodule present → nodule absent truth: nodule present" in page
    assert "right → wrong size of the change" in page


def test_values_have_no_columns_of_sensitivity(masters: dict[str, Path]) -> None:
    assert "Sensitivity" not in read_page(masters["age"]).sections["subgroups"]
    findings = re.sub(r"\s+", " ", read_page(masters["findings"]).sections["subgroups"])
    assert "Sensitivity under attack" in findings
    assert "sensitivity: of the finding that the goal is about" in findings
