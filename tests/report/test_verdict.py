"""What the first page claims: it equals the data, and every doubt is said and withholds the mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.build import build
from titer.report.format import interval, percent


def rows_of(folder: Path, defense: str) -> list[dict[str, Any]]:
    return [row for row in read_data(folder)["defenses"] if row["defense"] == defense]


def test_the_verdict_states_the_data(masters: dict[str, Path]) -> None:
    import json

    folder = masters["image"]
    first, data = read_page(folder).sections["summary"], read_data(folder)
    summary = json.loads((folder / "statistics.json").read_text())["summary"]
    at = {
        (r["defense"], r["attack"], r["threat"]): r
        for r in summary
        if r["metric"] == "accuracy" and r["source"] == r["defense"]
    }
    for verdict in data["verdicts"]:
        assert verdict["threat"] in ("linf 8/255", "l2 200/255")
        for key in (("none", "none", "none"), ("none", "worst-case", verdict["threat"])):
            assert percent(at[key]["mean"]) in verdict["sentence"]
        best = at[verdict["best"], "worst-case", verdict["threat"]]
        assert percent(best["mean"]) in verdict["sentence"]
        assert verdict["sentence"] in first
        assert interval(verdict["attacked"]["low"], verdict["attacked"]["high"]) in verdict["sentence"]


def test_intervals_are_the_wider_of_the_two(masters: dict[str, Path]) -> None:
    import json

    folder = masters["image"]
    rows = json.loads((folder / "statistics.json").read_text())["summary"]
    row = next(r for r in rows if (r["defense"], r["attack"], r["metric"]) == ("none", "worst-case", "accuracy"))
    shown = next(
        one for one in read_data(folder)["headline"] if one["defense"] == "none" and one["threat"] == row["threat"]
    )
    width = max(row["ci_high"] - row["ci_low"], row["pooled_ci_high"] - row["pooled_ci_low"])
    assert shown["robust_accuracy"]["high"] - shown["robust_accuracy"]["low"] == pytest.approx(width)


def test_a_failed_check_is_on_the_first_page_and_takes_the_mark(masters: dict[str, Path]) -> None:
    folder = masters["image"]
    first, data = read_page(folder).sections["summary"], read_data(folder)
    assert "Robustness overestimated: 1 check failed" in first
    assert "JPEG compression is not to be trusted: robustness overestimated" in first
    assert data["sanity"]["failures"][0]["defense"] == "jpeg"
    assert [row["mark"] for row in rows_of(folder, "jpeg")] == [False, False]
    assert any(row["mark"] for row in rows_of(folder, "adversarial-training"))
    assert all(verdict["best"] != "jpeg" for verdict in data["verdicts"])


def test_the_highest_number_is_not_best_where_its_check_failed(copy: Any) -> None:
    folder = copy("image")
    change_json(
        folder / "sanity.json",
        lambda c: [one.update(result="fail") for one in c["checks"] if one["defense"] == "hybrid"] and None,
    )
    build(folder)
    data = read_data(folder)
    assert {verdict["best"] for verdict in data["verdicts"]} == {"adversarial-training"}
    assert all(len(verdict["warnings"]) == 2 for verdict in data["verdicts"])
    assert not any(row["mark"] for row in rows_of(folder, "hybrid"))


def test_no_check_means_no_mark(copy: Any) -> None:
    folder = copy("image")
    change_json(folder / "sanity.json", lambda c: c | {"checks": []})
    build(folder)
    first = read_page(folder).sections["summary"]
    assert not any(row["mark"] for row in read_data(folder)["defenses"])
    assert "No check of the measurement itself gave a result" in first
    assert "checks of the measurement passed" not in first


def test_an_attack_that_did_not_run_takes_the_mark(copy: Any) -> None:
    import pandas as pd

    folder = copy("table")
    metrics = pd.read_parquet(folder / "metrics.parquet")
    gone = (metrics["attack"] == "square") & (metrics["defense"] == "adversarial-training")
    metrics[~gone].to_parquet(folder / "metrics.parquet")
    build(folder)
    assert not any(row["mark"] for row in rows_of(folder, "adversarial-training"))
    assert "was not attacked by Square attack" in read_page(folder).sections["summary"]


@pytest.mark.parametrize(
    ("change", "marked"),
    [
        ({"p_holm": 0.2, "mcnemar_p_holm": 0.2}, False),
        ({"p_holm": 0.2, "mcnemar_p_holm": 0.001, "mcnemar_median_p": 0.3}, False),
        ({"p_holm": 0.2, "mcnemar_p_holm": 0.001, "mcnemar_gained": 2, "mcnemar_lost": 9}, False),
        ({"p_holm": 0.2, "mcnemar_p_holm": 0.001}, True),
        ({"p_holm": None, "mcnemar_p_holm": None}, False),
        ({"attack_success_rate_defended": 0.99, "p_holm": 0.001}, False),
        ({"attack_success_rate_defended": None}, False),
    ],
)
def test_the_mark_needs_a_significant_cut(copy: Any, change: dict[str, Any], marked: bool) -> None:
    folder = copy("table")
    change_json(folder / "statistics.json", lambda c: [row.update(change) for row in c["versus_undefended"]] and None)
    build(folder)
    assert {row["mark"] for row in rows_of(folder, "adversarial-training")} == {marked}
    assert ("✓" in read_page(folder).sections["defences"]) == marked


def test_losing_clean_accuracy_earns_no_mark(copy: Any) -> None:
    folder = copy("table")

    def lower(content: dict[str, Any]) -> None:
        for row in content["summary"]:
            if row["defense"] == "adversarial-training" and (row["attack"], row["metric"]) == (
                "worst-case",
                "accuracy",
            ):
                row["mean"] = 0.01

    change_json(folder / "statistics.json", lower)
    build(folder)
    assert {row["mark"] for row in rows_of(folder, "adversarial-training")} == {False}
    assert "not right more often under attack" in read_page(folder).sections["defences"]


def test_cautions_are_on_the_first_page(masters: dict[str, Path]) -> None:
    image, single = (read_page(masters[name]).sections["summary"] for name in ("image", "single"))
    assert "Not run (5 cells): Fast gradient sign (FGSM) under l2 200/255" in image
    assert "were put back" in image
    assert "Low power" in image
    assert "There is one trial only" in single
    assert "All 6 checks of the measurement passed" in single


def test_a_defence_that_misses_more_is_called_out(copy: Any) -> None:
    folder = copy("image")

    def more(content: dict[str, Any]) -> None:
        for row in content["summary"]:
            if row["metric"] == "fnr" and row["defense"] == "hybrid" and row["attack"] == "worst-case":
                row["mean"] = 0.99

    change_json(folder / "statistics.json", more)
    build(folder)
    assert "misses more findings “pneumonia”: " in read_page(folder).sections["summary"]
    assert "99 of 100 under attack" in read_page(folder).sections["summary"]


def test_an_unfinished_run_says_so(copy: Any) -> None:
    folder = copy("single")
    change_json(folder / "manifest.json", lambda c: c | {"finished": None})
    build(folder)
    assert "The run did not finish" in read_page(folder).sections["summary"]


def test_the_data_file_agrees_with_the_page(master: Path) -> None:
    data, page = read_data(master), read_page(master)
    assert data["format_version"] == 1
    for row in data["defenses"]:
        assert percent(row["adaptive"]["mean"]) in page.sections["defences"]
    for row in data["error_shifts"]:
        assert row["missed"] in page.sections["errors"]
        assert row["alarms"] in page.sections["errors"]
    for row in data["subgroups"]:
        assert percent(row["robust"]["mean"]) in page.sections["subgroups"]
    assert data["provenance"]["plan_sha256"] in page.sections["provenance"]


def test_subgroups_are_flagged_or_said_to_be_missing(masters: dict[str, Path]) -> None:
    assert "⚑ few" in read_page(masters["image"]).sections["subgroups"]
    assert "no subgroup columns in this data set" in read_page(masters["single"]).sections["subgroups"]


def test_several_classes_are_worded_as_averages(masters: dict[str, Path]) -> None:
    assert "Averaged over the classes" in read_page(masters["table"]).sections["errors"]
    assert "with the finding “pneumonia”" in read_page(masters["image"]).sections["errors"]
