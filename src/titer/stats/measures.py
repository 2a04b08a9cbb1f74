"""The measures of one cell or subgroup: what the attack did to its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titer.stats import classification

MEASURES = [
    "n", "n_positive", "n_eligible", "accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr",
    "fnr", "ece", "clean_error", "adversarial_error", "attack_success_rate", "put_back_share", "median_distance",
    "median_queries", "mean_forwards", "mean_backwards",
]  # fmt: skip
NO_ATTACK = "none"
WORST_CASE = "worst-case"
HIDE, INVENT = "hide:", "invent:"
_ABSENT_OR_PRESENT, _PRESENT = 2, 1
_OF_CLASSES = ("balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "ece")


@dataclass(frozen=True, slots=True)
class Rows:
    """The columns that measures read, as arrays [n]; probabilities are [n, classes].

    `rated` are the rows with a class to be right about, or one finding; of the others there are only errors.
    `queries` are the forward passes of attacks that made no backward pass, NaN elsewhere.
    """

    classes: int
    positive: int | None
    rated: NDArray[np.bool_]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    right_when_clean: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    attacked: NDArray[np.bool_]
    won: NDArray[np.bool_]
    put_back: NDArray[np.float64]
    distance: NDArray[np.float64]
    queries: NDArray[np.float64]
    clean_error: NDArray[np.float64]
    adversarial_error: NDArray[np.float64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]

    @classmethod
    def read(
        cls,
        table: pd.DataFrame,
        cell: NDArray[np.int64],
        classes: int,
        positive: int | None,
        *,
        findings: bool = False,
    ) -> Rows:
        """Read the completed outcomes `table`, whose rows belong to the cells numbered `cell` [n].

        `findings` says that rows with an error are of several findings: a mask has a goal to hide as well, and its
        labels say nothing of what is there.
        """
        label = table["label"].to_numpy(dtype=np.int64)
        graded = bool(table["clean_error"].notna().any())
        classes, positive = (_ABSENT_OR_PRESENT, _PRESENT) if graded else (classes, positive)
        rated = _about_one_finding(table) & findings if graded else np.ones(len(table), dtype=bool)
        eligible = table["eligible"].to_numpy(dtype=bool)
        return cls(
            classes=classes,
            positive=positive if classes == 2 else None,
            rated=rated,
            label=label,
            prediction=table["adversarial_prediction"].to_numpy(dtype=np.int64),
            probabilities=_stacked(table["adversarial_probabilities"], classes, rated),
            right_when_clean=table["clean_prediction"].to_numpy(dtype=np.int64) == label,
            eligible=eligible,
            attacked=(table["attack"] != NO_ATTACK).to_numpy(),
            won=table["won"].to_numpy(dtype=bool) & eligible,
            put_back=table["put_back"].to_numpy(dtype=np.float64),
            distance=_own_distance(table),
            queries=_queries(table, cell),
            clean_error=table["clean_error"].to_numpy(dtype=np.float64),
            adversarial_error=table["adversarial_error"].to_numpy(dtype=np.float64),
            forwards=table["forwards"].to_numpy(dtype=np.float64),
            backwards=table["backwards"].to_numpy(dtype=np.float64),
        )

    def measures(self, at: NDArray[np.int64]) -> dict[str, Any]:
        """Return every measure of the rows `at` (at least one row)."""
        label, prediction, eligible = self.label[at], self.prediction[at], self.eligible[at]
        rated = bool(self.rated[at].all())
        at_stake = self.right_when_clean[at] & eligible
        fooled = self.won[at] & at_stake
        return {
            "n": at.size,
            "n_positive": pd.NA if self.positive is None or not rated else int((label == self.positive).sum()),
            "n_eligible": int(eligible.sum()),
            "accuracy": classification.accuracy(label, prediction),
            **(self._rates(at) if rated else dict.fromkeys(_OF_CLASSES, float("nan"))),
            "clean_error": _mean(_known(self.clean_error[at])),
            "adversarial_error": _mean(_known(self.adversarial_error[at])),
            "attack_success_rate": _mean(fooled[at_stake]) if self.attacked[at[0]] else float("nan"),
            "put_back_share": _mean(self.put_back[at]),
            "median_distance": _median(self.distance[at][fooled]),
            "median_queries": _median(self.queries[at][fooled]),
            "mean_forwards": _mean(self.forwards[at]),
            "mean_backwards": _mean(self.backwards[at]),
        }

    def _rates(self, at: NDArray[np.int64]) -> dict[str, float]:
        """Return the measures that only rated rows have."""
        label, prediction, probabilities = self.label[at], self.prediction[at], self.probabilities[at]
        kind: dict[str, Any] = {"classes": self.classes, "positive": self.positive}
        found = classification.sensitivity(label, prediction, **kind)
        cleared = classification.specificity(label, prediction, **kind)
        return {
            "balanced_accuracy": classification.balanced_accuracy(label, prediction, classes=self.classes),
            "auroc": classification.auroc(label, probabilities, positive=self.positive),
            "sensitivity": found,
            "specificity": cleared,
            "fpr": 1.0 - cleared,
            "fnr": 1.0 - found,
            "ece": classification.ece(label, prediction, probabilities),
        }


def _about_one_finding(table: pd.DataFrame) -> NDArray[np.bool_]:
    goals = table["goal"].astype(str)
    return (goals.str.startswith((HIDE, INVENT)) & (table["attack"] != NO_ATTACK)).to_numpy(dtype=bool)


def _stacked(column: pd.Series[Any], classes: int, rated: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Stack a list column to [n, classes]; a missing list, or one of a row that is not `rated`, is a row of NaN."""
    unknown = np.full(classes, np.nan)
    pairs = zip(column, rated, strict=True)
    lists = [row if known and row is not None and not isinstance(row, float) else unknown for row, known in pairs]
    wrong = next((len(row) for row in lists if len(row) != classes), None)
    if wrong is not None:
        raise ValueError(f"adversarial_probabilities has a row of {wrong} values: allowed is one per class, {classes}")
    return np.array(lists, dtype=np.float64).reshape(len(lists), classes)


def _own_distance(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return each row's distance in its threat's own norm [n]; NaN where that norm has no column."""
    distance = np.full(len(table), np.nan)
    for norm in map(str, table["norm"].unique()):
        if f"distance_{norm}" in table.columns:
            mine = (table["norm"] == norm).to_numpy()
            distance[mine] = table[f"distance_{norm}"].to_numpy(dtype=np.float64)[mine]
    return distance


def _queries(table: pd.DataFrame, cell: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the queries to the judged model [n]; NaN where the attack used gradients or searched on another model.

    A worst case has none either: its rows are those of several attacks, and so are their costs.
    """
    backwards = np.bincount(cell, weights=table["backwards"].to_numpy(dtype=np.float64))
    searched = (table["source"].astype(object) == table["defense"].astype(object)).to_numpy(dtype=bool)
    one_attack = ~table["attack"].isin([NO_ATTACK, WORST_CASE]).to_numpy(dtype=bool)
    known = (backwards[cell] == 0) & searched & one_attack
    return np.where(known, table["forwards"].to_numpy(dtype=np.float64), np.nan)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _median(values: NDArray[np.float64]) -> float:
    known = _known(values)
    return float(np.median(known)) if known.size else float("nan")
