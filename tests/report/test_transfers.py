"""The matrix of sources and targets, and the cost of attacks that only ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.build import build


def test_the_diagonal_is_the_worst_case_and_the_rest_is_counted(masters: dict[str, Path]) -> None:
    table = pd.read_parquet(masters["brain"] / "outcomes.parquet")
    metrics = pd.read_parquet(masters["brain"] / "metrics.parquet")
    worst = metrics[(metrics["attack"] == "worst-case") & (metrics["group"] == "all")]
    for one in read_data(masters["brain"])["transfers"]:
        rows = table[(table["threat"] == one["threat"]) & table["eligible"]]
        rows = rows[rows["clean_prediction"] == rows["label"]]
        for source, values in zip(one["sources"], one["success"], strict=True):
            for target, value in zip(one["targets"], values, strict=True):
                pair = rows[(rows["source"] == source) & (rows["defense"] == target)]
                if pair.empty:
                    assert value["mean"] is None
                    continue
                fooled = pair.groupby(["trial", "sample_id"])["won"].any().groupby("trial").mean()
                assert value["mean"] == pytest.approx(fooled.mean())
                if source == target:
                    own = worst[(worst["defense"] == target) & (worst["threat"] == one["threat"])]
                    assert value["mean"] == pytest.approx(own["attack_success_rate"].mean())


def test_sources_are_defences_and_surrogates_targets_are_models(masters: dict[str, Path]) -> None:
    matrices = read_data(masters["brain"])["transfers"]
    assert [one["threat"] for one in matrices] == ["linf 8/255", "hide glioma 8/255", "invent glioma 8/255"]
    for one in matrices:
        surrogates = ["surrogate: resnet18", "surrogate: stolen copy of small-cnn"]
        assert one["sources"] == ["none", "adversarial-training", "jpeg", *surrogates]
        assert one["targets"] == ["none", "adversarial-training", "jpeg"]
        assert one["success"][1][0]["mean"] is None
    page = read_page(masters["brain"])
    words = page.sections["transfer"]
    assert "Surrogate: stolen copy of small-cnn" in words
    assert "or on a copy of their own (a surrogate)" in words
    assert "not run" in words
    labels = [str(a.get("aria-label")) for tag, a in page.tags if tag == "svg"]
    assert sum("Found on Surrogate: resnet18:" in label for label in labels) == 3


def test_a_run_in_which_nothing_was_carried_over_says_so(copy: Any) -> None:
    folder = copy("age")
    table = pd.read_parquet(folder / "outcomes.parquet")
    table[table["source"] == table["defense"]].to_parquet(folder / "outcomes.parquet")
    build(folder)
    assert read_data(folder)["transfers"] == []
    assert "No input was shown to a model other than" in read_page(folder).sections["transfer"]


def test_queries_are_those_of_attacks_without_gradients(masters: dict[str, Path]) -> None:
    rows = read_data(masters["brain"])["queries"]
    assert {row["attack"] for row in rows} == {"square", "hopskipjump"}
    assert len(rows) == 2 * 3 * 3  # attacks, families, defences
    square = next(
        row for row in rows if (row["attack"], row["defense"], row["threat"]) == ("square", "none", "linf 8/255")
    )
    assert (square["budget"], square["access"]) == (2000, "scores")
    metrics = pd.read_parquet(masters["brain"] / "metrics.parquet")
    mine = (metrics["attack"] == "square") & (metrics["threat"] == "linf 8/255") & (metrics["group"] == "all")
    own = metrics[mine & (metrics["source"] == "none") & (metrics["defense"] == "none")]
    assert square["median"]["mean"] == pytest.approx(own["median_queries"].mean())
    assert square["success"]["mean"] == pytest.approx(own["attack_success_rate"].mean())
    assert square["median"]["low"] < square["median"]["mean"] < square["median"]["high"]
    outcomes = pd.read_parquet(masters["brain"] / "outcomes.parquet")
    spent = outcomes[(outcomes["attack"] == "square") & (outcomes["threat"] == "linf 8/255")]
    assert square["spent"] == spent[(spent["source"] == "none") & (spent["defense"] == "none")]["forwards"].max()
    words = read_page(masters["brain"]).sections["queries"]
    assert "output scores" in words
    assert "Full table: every defence (18 rows)" in words


def test_without_such_attacks_the_section_says_so(masters: dict[str, Path]) -> None:
    assert "No attack of this run worked from" in read_page(masters["image"]).sections["queries"]


def test_failed_cells_stand_apart_from_skipped_ones(masters: dict[str, Path]) -> None:
    page = read_page(masters["brain"])
    first, listed = page.sections["summary"], page.sections["threats"]
    assert "Failed (1 cell): HopSkipJump under linf 4/255. Reason: the endpoint answered 500 after 4 tries." in first
    assert "Not run (5 cells): patch, jsma, zoo, spsa and universal." in first
    failed, skipped = listed.index("Failed: tried, but without a result"), listed.index("Skipped before any time")
    assert failed < listed.index("the endpoint answered 500") < skipped < listed.index("a patch needs a mask")
    assert [gap["failed"] for gap in read_data(masters["brain"])["gaps"]] == [True, *[False] * 5]


def test_cells_with_one_reason_are_told_once(copy: Any) -> None:
    folder = copy("single")
    cell = {"model": "small-cnn", "attack": "jsma", "reason": "failed: no answer in 30 s"}
    cells = [
        cell | {"trial": t, "source": s, "threat": f"l0 {t}"}
        for t in range(3)
        for s in ("none", "adversarial-training")
    ]
    change_json(folder / "skipped.json", lambda content: content | {"cells": cells})
    build(folder)
    gaps = read_data(folder)["gaps"]
    assert [(gap["cells"], gap["threats"], gap["failed"]) for gap in gaps] == [(6, ["l0 0", "l0 1", "l0 2"], True)]
    assert gaps[0]["sources"] == ["No defence", "Adversarial training"]
    assert (
        "Failed (6 cells): jsma under l0 0, l0 1 and l0 2. Reason: no answer in 30 s."
        in (read_page(folder).sections["summary"])
    )


def test_an_ensemble_shows_no_budget_that_only_one_of_its_members_keeps(copy: Any) -> None:
    folder = copy("brain")

    def change(manifest: Any) -> None:
        square = next(one for one in manifest["attacks"] if one["label"] == "square")
        square["spec"] = {"name": "worst-case", "attacks": [{"name": "square", "queries": 400}], "queries": 250}

    change_json(folder / "manifest.json", change)
    build(folder)
    assert {row["budget"] for row in read_data(folder)["queries"] if row["attack"] == "square"} == {None}
