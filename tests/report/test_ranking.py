"""The ranking of defences and the box of weak ones, as a reader sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.build import build
from titer.report.charts import foremost
from titer.report.costs import Cost
from titer.report.findings import DefenseRow
from titer.report.numbers import NOTHING, Estimate


def rankings(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_data(folder)["rankings"]
    return found


def test_the_best_defence_under_attack_comes_first(master: Path) -> None:
    for ranking in rankings(master):
        robust = [one["row"]["adaptive"]["mean"] or 0.0 for one in ranking["rows"]]
        assert robust == sorted(robust, reverse=True)
        assert {one["row"]["defense"] for one in ranking["rows"]} >= {"none"}
        assert len(ranking["rows"]) > 1


def test_letters_are_those_of_the_statistics(masters: dict[str, Path]) -> None:
    folder = masters["image"]
    statistics = json.loads((folder / "statistics.json").read_text())["ranking"]
    for ranking in rankings(folder):
        row = next(r for r in statistics if (r["attack"], r["threat"]) == ("worst-case", ranking["threat"]))
        letters = {one["defense"]: one["letters"] for one in row["order"]}
        assert {one["row"]["defense"]: one["letters"] for one in ranking["rows"]} == letters
        assert row["test"] in read_page(folder).sections["summary"]


def test_the_rarest_class_is_counted_in_the_worst_case(masters: dict[str, Path]) -> None:
    folder = masters["image"]
    table = pd.read_parquet(folder / "outcomes.parquet")
    counts = table[table["attack"] == "none"]["label"].value_counts()
    for ranking in rankings(folder):
        assert ranking["rarest"] == read_data(folder)["study"]["classes"][int(counts.idxmin())]
        for one in ranking["rows"]:
            mine = (table["defense"] == one["row"]["defense"]) & (table["source"] == table["defense"])
            rows = table[mine & (table["threat"] == ranking["threat"]) & (table["label"] == counts.idxmin())]
            right = (rows["adversarial_prediction"] == rows["label"]).groupby([rows["trial"], rows["sample_id"]]).all()
            assert one["rarest"]["mean"] == pytest.approx(float(right.groupby("trial").mean().mean()))


def test_a_defence_without_effect_is_called_weak_on_the_first_page(copy: Callable[[str], Path]) -> None:
    folder = copy("image")

    def without_effect(content: dict[str, Any]) -> None:
        for row in content["versus_undefended"]:
            if row["defense"] == "jpeg":
                row["attack_success_rate_defended"] = row["attack_success_rate_undefended"]
                row["relative_reduction_mean"] = 0.0

    change_json(folder / "statistics.json", without_effect)
    change_json(folder / "sanity.json", lambda content: content.update(checks=[_passed("none"), _passed("jpeg")]))
    build(folder)
    judged = {one["row"]["defense"]: one["judged"] for one in rankings(folder)[0]["rows"]}
    assert (judged["jpeg"], judged["none"]) == ("weak", "")
    first = " ".join(read_page(folder).sections["summary"].split())
    assert "Weak: 1 defence does not hold against an attacker who knows it" in first
    assert "right against an attacker who does not know it" in first


def test_a_failed_check_is_distrust_and_not_weakness(copy: Callable[[str], Path]) -> None:
    folder = copy("image")
    failed = _passed("jpeg") | {"result": "fail", "message": "found more"}
    change_json(folder / "sanity.json", lambda content: content.update(checks=[_passed("none"), failed]))
    build(folder)
    for ranking in rankings(folder):
        assert {one["judged"] for one in ranking["rows"] if one["row"]["defense"] == "jpeg"} == {"not trusted"}


def test_runs_from_before_the_ranking_are_read(copy: Callable[[str], Path]) -> None:
    folder = copy("image")
    change_json(folder / "statistics.json", _without_ranking)
    build(folder)
    assert {one["letters"] for ranking in rankings(folder) for one in ranking["rows"]} == {""}
    assert "no test" in read_page(folder).sections["summary"]


def test_of_many_defences_the_first_figure_has_the_best_trusted_ones() -> None:
    def row(defense: str, right: float, failed: int = 0) -> DefenseRow:
        names = {"model": "m", "family": "linf", "defense": defense, "title": defense}
        some = {"clean": NOTHING, "transfer": NOTHING, "transfer_attack": "", "gain": None}
        cost = Cost(None, None, None, None)
        return DefenseRow(
            **names, **some, adaptive=Estimate(mean=right), cost=cost, failed=failed, mark=False, reason=""
        )

    rows = [row("none", 0.2), row("doubted", 0.99, failed=1), *(row(f"d{i}", i / 10) for i in range(9))]
    assert [one.defense for one in foremost(rows)] == ["none", "d3", "d4", "d5", "d6", "d7", "d8"]
    assert list(foremost(rows[:9])) == rows[:9]


def _without_ranking(content: dict[str, Any]) -> None:
    del content["ranking"]


def _passed(defense: str) -> dict[str, Any]:
    return {"check": "more-steps", "result": "pass", "model": "", "defense": defense, "threat_family": "linf"} | {
        "message": "",
        "consequence": "",
    }
