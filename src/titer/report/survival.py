"""Robust accuracy against the budget, read off the distances of a least-perturbation attack's finds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titer.report.load import ANY_ERROR, RunFolder
from titer.report.shares import bounds
from titer.report.study import Study
from titer.report.tallies import Tallies, pick

Real = NDArray[np.float64]
_SAME = 1e-6
_STEPS = 160  # more than a figure of this width can show
_CUT = 3


@dataclass(frozen=True, slots=True)
class Staircase:
    """The share not fooled within each distance, for one attack on one defence.

    Attributes:
        model: the base model.
        family: the threat family.
        attack: label of the least-perturbation attack.
        defense: label of the defence.
        distances: where the share falls, in the threat's unit and norm, from 0 on; the last one is the axis's end.
        shares: the share of the rows at stake that is not fooled at that distance, mean over trials.
        low: its lower 95 % bound; `high` is the upper one.
        high: its upper 95 % bound.
        median: median distance over the rows that were not fooled at distance 0; infinite where half of them hold.
    """

    model: str
    family: str
    attack: str
    defense: str
    distances: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    median: float


def staircases(run: RunFolder, study: Study, tallies: Tallies) -> tuple[Staircase, ...]:
    """Return one staircase per model, family, least-perturbation attack and defence that it searched on."""
    found = [
        _staircase(run, study, tallies, (model, family, attack.label, defense))
        for model in study.models
        for family in study.families
        for attack in study.attacks
        if attack.minimal
        for defense in study.defenses
    ]
    return tuple(one for one in found if one is not None)


def _staircase(run: RunFolder, study: Study, tallies: Tallies, key: tuple[str, str, str, str]) -> Staircase | None:
    model, family, attack, defense = key
    threat = study.largest(family)
    wanted = {"model": model, "defense": defense, "source": defense, "attack": attack, "threat": threat.label}
    rows = run.outcomes[pick(run.outcomes, wanted)]
    rows = rows[rows["eligible"].to_numpy(dtype=bool)]
    column = f"distance_{threat.norm}"
    if rows.empty or column not in rows.columns:
        return None
    rows = rows.assign(at=np.round(_fooled_at(rows, column, threat.eps), 6))
    trials = [np.sort(part["at"].to_numpy()) for _, part in rows.groupby("trial", sort=True)]
    at = _places(np.concatenate(trials), threat.eps)
    left = np.stack([1 - np.searchsorted(each, at, side="right") / each.size for each in trials])
    rows_of_a_trial = float(np.mean([each.size for each in trials]))
    low, high = _falling(*bounds(left, tallies.independent * rows_of_a_trial))
    moved = np.concatenate(trials)
    moved = moved[moved > 0]
    return Staircase(
        *key,
        distances=_rounded(at),
        shares=_rounded(left.mean(axis=0)),
        low=_rounded(low),
        high=_rounded(high),
        median=float(np.median(moved)) if moved.size else math.inf,
    )


def _falling(low: Real, high: Real) -> tuple[Real, Real]:
    """Widen a band so that it never rises: the share cannot, and few trials make the bounds jump."""
    return np.minimum.accumulate(low), np.maximum.accumulate(high[::-1])[::-1]


def _rounded(values: Real) -> tuple[float, ...]:
    return tuple(map(float, np.round(values, 6)))


def _places(distances: Real, eps: float) -> Real:
    """Return 0, distances at which the share falls, and the end of the axis: 3 times the largest budget at most."""
    finite = np.unique(distances[np.isfinite(distances)])
    end = min(_CUT * eps, max(1.05 * eps, float(finite[-1]) if finite.size else 0.0))
    inner = finite[(finite > 0) & (finite < end)]
    kept = inner[:: max(1, math.ceil(inner.size / _STEPS))]
    return np.concatenate([[0.0], kept, [end]])


def _fooled_at(rows: pd.DataFrame, column: str, eps: float) -> Real:
    """Return the distance at which each row is fooled: 0 if lost when clean, infinite where no find is known."""
    distance = rows[column].to_numpy(dtype=np.float64)
    found = rows["won"].to_numpy(dtype=bool) | (distance > eps * (1 + _SAME))
    at = np.where(found & np.isfinite(distance), distance, np.inf)
    wrong = (rows["clean_prediction"] != rows["label"]).to_numpy(dtype=bool)
    any_error = (rows["goal"] == ANY_ERROR).to_numpy(dtype=bool)
    return np.where(wrong & any_error, 0.0, at)
