"""The staircase of a least-perturbation attack: what is left at each distance, counted row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import read_data, read_page
from titer.report.load import read_run
from titer.report.shares import bounds, share, wilson
from titer.report.study import read_study
from titer.report.tallies import tally


def lines_of(folder: Path, **keys: str) -> list[dict]:
    return [one for one in read_data(folder)["staircases"] if all(one[key] == value for key, value in keys.items())]


def left(rows: pd.DataFrame, distance: float) -> float:
    """Count, trial by trial, the rows at stake whose nearest find is farther than `distance`."""
    rows = rows[rows["eligible"]]
    fooled = (rows["won"] | (rows["distance_linf"] > rows["eps"])) & (rows["distance_linf"] <= distance)
    return float(1 - fooled.groupby(rows["trial"]).mean().mean())


@pytest.mark.parametrize("family", ["linf", "hide glioma", "invent glioma"])
@pytest.mark.parametrize("attack", ["fmn", "carlini-wagner"])
def test_every_step_is_where_rows_fall(masters: dict[str, Path], family: str, attack: str) -> None:
    table = pd.read_parquet(masters["brain"] / "outcomes.parquet")
    found = lines_of(masters["brain"], family=family, attack=attack)
    assert [one["defense"] for one in found] == ["none", "adversarial-training", "jpeg"]
    for one in found:
        mine = (table["defense"] == one["defense"]) & (table["source"] == one["defense"])
        rows = table[mine & (table["attack"] == attack) & (table["threat"] == f"{family} 8/255")]
        for at, expected in zip(one["distances"][::20], one["shares"][::20], strict=True):
            assert left(rows, at + 1e-6) == pytest.approx(expected, abs=1e-5)
        assert one["distances"][0] == 0
        assert one["shares"][0] == pytest.approx(left(rows, 0.0))
        assert one["distances"][-1] <= 3 * 8


def test_shares_and_bands_never_rise_and_hold_the_mean(masters: dict[str, Path]) -> None:
    for one in [*lines_of(masters["brain"]), *lines_of(masters["image"]), *lines_of(masters["age"])]:
        for name in ("shares", "low", "high"):
            assert (np.diff(one[name]) <= 1e-9).all()
        assert (np.asarray(one["low"]) <= one["shares"]).all()
        assert (np.asarray(one["high"]) >= one["shares"]).all()
        assert 0 <= min(one["low"]) < max(one["high"]) <= 1


def test_older_runs_have_staircases_too(masters: dict[str, Path]) -> None:
    found = lines_of(masters["image"], family="linf", attack="carlini-wagner")
    assert len(found) == 5
    assert not lines_of(masters["table"])


def test_the_points_are_what_the_other_attacks_left(masters: dict[str, Path]) -> None:
    run = read_run(masters["brain"])
    counts = tally(run, read_study(run))
    metrics = run.metrics[(run.metrics["group"] == "all") & (run.metrics["source"] == run.metrics["defense"])]
    for defense in ("none", "jpeg"):
        rows = metrics[(metrics["defense"] == defense) & (metrics["attack"] == "square")]
        expected = rows[rows["threat"] == "linf 4/255"]["accuracy"].mean()
        assert counts.withstood("small-cnn", defense, "square", "linf 4/255").mean == pytest.approx(expected)
    assert counts.withstood("small-cnn", "none", "nothing", "linf 4/255").mean is None


def test_the_strongest_attack_is_shown_and_the_others_fold(masters: dict[str, Path]) -> None:
    words = read_page(masters["brain"]).sections["curves"]
    assert words.index("Fast minimum norm (FMN)") < words.index("The other least-perturbation attacks (1)")
    assert words.index("The other least-perturbation attacks (1)") < words.index("Carlini & Wagner")
    assert "Share of the patients with “glioma” not fooled" in words


def test_intervals_are_the_wider_of_trials_and_patients() -> None:
    equal, apart = np.array([0.5, 0.5, 0.5]), np.array([0.2, 0.5, 0.8])
    low, high = bounds(equal, 100)
    assert (float(low), float(high)) == pytest.approx(tuple(map(float, wilson(np.array(0.5), 100))))
    half = 4.302653 * apart.std(ddof=1) / 3**0.5  # Student's t, 2 degrees of freedom
    assert tuple(map(float, bounds(apart, 100))) == pytest.approx((max(0.0, 0.5 - half), min(1.0, 0.5 + half)))
    assert share(apart, 100).over == "trials"
    assert share(equal, 100).over == "patients"
    assert share(np.array([np.nan]), 100).mean is None
    from statsmodels.stats.proportion import proportion_confint

    assert tuple(map(float, wilson(np.array(0.3), 50))) == pytest.approx(proportion_confint(15, 50, method="wilson"))
