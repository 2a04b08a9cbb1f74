"""What became of the attacked rows, counted once for the sections that need more than the metrics hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from titer.report.load import ANY_ERROR, RunFolder
from titer.report.numbers import NOTHING, Estimate
from titer.report.shares import Real, share
from titer.report.study import Study

CELL = ["model", "defense", "source", "attack", "threat", "trial"]
UNION = ["model", "defense", "source", "threat", "trial"]


@dataclass(frozen=True, slots=True)
class Tallies:
    """Counts of attacked rows.

    Attributes:
        cells: one row per model, defense, source, attack, threat and trial: the rows `at_stake`, on which the goal
            makes sense; the `lost` ones of those; passes, and `most_forwards`, the most spent on one row; `access`.
        attacks: per model, defense, attack and threat, by an attacker who knows the defence: the rows at stake and the
            lost ones of those, each [trials].
        unions: one row per model, defense, source, threat (the largest budgets, and all whose goal is about one
            class), trial and sample, over all attacks: whether it is `eligible`, was `right` when clean, was `lost`;
            and its `label`.
        clean: one row per model, defense, trial and sample without attack: its `label` and `clean_prediction`.
        independent: patients over rows of one trial: what a row counts for in an interval.
    """

    cells: pd.DataFrame
    attacks: Mapping[tuple[str, str, str, str], tuple[Real, Real]]
    unions: pd.DataFrame
    clean: pd.DataFrame
    independent: float

    def withstood(self, model: str, defense: str, attack: str, threat: str) -> Estimate:
        """Return the share of the rows at stake that withstood one attack by an attacker who knows the defence."""
        counts = self.attacks.get((model, defense, attack, threat))
        if counts is None:
            return NOTHING
        at_stake, lost = counts
        return share(1 - lost / at_stake, self.independent * float(at_stake.mean()))

    def held(self, model: str, defense: str, threat: str) -> Estimate:
        """Return the share of the rows at stake that withstood every attack by an attacker who knows the defence."""
        wanted = {"model": model, "defense": defense, "source": defense, "threat": threat}
        rows = self.unions[pick(self.unions, wanted) & self.unions["eligible"].to_numpy(dtype=bool)]
        return self.rate(rows.assign(hit=~rows["lost"].to_numpy(dtype=bool)))

    def right_before(self, model: str, defense: str, threat: str) -> Estimate:
        """Return the share of all rows under a threat, at stake or not, that are right without attack."""
        rows = self.unions[pick(self.unions, {"model": model, "defense": defense, "source": defense, "threat": threat})]
        return self.rate(rows.assign(hit=rows["right"].to_numpy(dtype=bool)))

    def robust_in_class(self, model: str, defense: str, threat: str, label: int) -> Estimate:
        """Return the share of one class's rows that are right in the worst case over all attacks."""
        wanted = {"model": model, "defense": defense, "source": defense, "threat": threat}
        rows = self.unions[pick(self.unions, wanted) & (self.unions["label"] == label).to_numpy(dtype=bool)]
        return self.rate(rows.assign(hit=(rows["right"] & ~rows["lost"]).to_numpy(dtype=bool)))

    def rarest(self) -> int | None:
        """Return the class with the fewest rows, None where all have as many."""
        counts = self.clean["label"].value_counts()
        return None if counts.empty or counts.min() == counts.max() else int(counts.idxmin())

    def rate(self, rows: pd.DataFrame) -> Estimate:
        """Return the share of `hit` among `rows`, mean over trials, with its interval."""
        if rows.empty:
            return NOTHING
        trials = rows.groupby("trial")["hit"]
        return share(trials.mean().to_numpy(dtype=np.float64), self.independent * float(trials.size().mean()))


def tally(run: RunFolder, study: Study) -> Tallies:
    """Count the attacked rows of `run`."""
    rows = run.outcomes
    clean = rows[(rows["attack"] == "none").to_numpy()]
    per_trial = clean[["trial", "patient_id", "sample_id"]].astype({"patient_id": object, "sample_id": object})
    counts = per_trial.groupby("trial").nunique()
    independent = float((counts["patient_id"] / counts["sample_id"]).mean()) if len(counts) else 1.0
    attacked = rows[(rows["attack"] != "none").to_numpy()]
    eligible = attacked["eligible"].to_numpy(dtype=bool)
    attacked = attacked.assign(
        eligible=eligible,
        lost=attacked["won"].to_numpy(dtype=bool) & eligible,
        right=(attacked["clean_prediction"] == attacked["label"]).to_numpy(),
    )
    wanted = [study.largest(family).label for family in study.families]
    wanted += [one.label for ladder in study.families.values() for one in ladder if one.goal != ANY_ERROR]
    united = attacked[attacked["threat"].isin(wanted).to_numpy()]
    cells = _cells(attacked)
    return Tallies(
        cells=cells,
        attacks=_attacks(cells),
        unions=_unions(united),
        clean=clean[["model", "defense", "trial", "label", "clean_prediction"]],
        independent=independent,
    )


def pick(table: pd.DataFrame, wanted: dict[str, str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows of `table` have all the `wanted` names: bool[n]."""
    found = np.ones(len(table), dtype=bool)
    for column, value in wanted.items():
        found &= (table[column] == value).to_numpy(dtype=bool)
    return found


def _cells(attacked: pd.DataFrame) -> pd.DataFrame:
    groups = attacked.groupby(CELL, sort=False, observed=True)
    return groups.agg(
        at_stake=("eligible", "sum"),
        lost=("lost", "sum"),
        forwards=("forwards", "sum"),
        backwards=("backwards", "sum"),
        most_forwards=("forwards", "max"),
        access=("access", "first"),
    ).reset_index()


def _attacks(cells: pd.DataFrame) -> dict[tuple[str, str, str, str], tuple[Real, Real]]:
    adaptive = cells[((cells["source"].astype(object) == cells["defense"].astype(object)) & (cells["at_stake"] > 0))]
    found = {}
    for (model, defense, attack, threat), rows in adaptive.groupby(
        ["model", "defense", "attack", "threat"], sort=False, observed=True
    ):
        counts = rows["at_stake"].to_numpy(dtype=np.float64), rows["lost"].to_numpy(dtype=np.float64)
        found[str(model), str(defense), str(attack), str(threat)] = counts
    return found


def _unions(attacked: pd.DataFrame) -> pd.DataFrame:
    groups = attacked.groupby([*UNION, "sample_id"], sort=False, observed=True)
    kept = {name: (name, "first") for name in ("eligible", "right", "label")}
    return groups.agg(lost=("lost", "any"), **kept).reset_index()
