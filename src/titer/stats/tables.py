"""From one row per sample (outcomes.parquet) to one row per cell and subgroup (metrics.parquet)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titer.stats import classification

CELL = ["model", "defense", "source", "attack", "threat", "trial"]
BUDGET = ["threat_family", "norm", "eps", "unit", "access"]
MEASURES = [
    "n", "n_positive", "accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "ece",
    "attack_success_rate", "put_back_share", "median_distance", "mean_forwards", "mean_backwards",
]  # fmt: skip
COLUMNS = [*CELL, "group", "value", *BUDGET, *MEASURES]
WORST_CASE = "worst-case"
NO_ATTACK = "none"
_NEEDED = [
    *CELL, *BUDGET, "sample_id", "patient_id", "label", "clean_prediction", "adversarial_prediction",
    "adversarial_probabilities", "won", "put_back", "forwards", "backwards",
]  # fmt: skip
_STRENGTH = ("gradient", "scores", "decision")


def worst_case(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the worst case over the adaptive attacks: one row per (model, defense, threat, trial, sample).

    The row is the winning attack's, the first in order of appearance; where none won, that of the attack which left
    the true class the lowest probability (ties and unknown probabilities: the first). `attack` reads `worst-case`
    and `access` is the widest that any of the attacks had. Columns are those of `outcomes`, costs included: they are
    the judged row's, not the sum over the attacks. Raises ValueError for a damaged table.
    """
    check(outcomes)
    known = (
        (outcomes["attack"] != NO_ATTACK) & (outcomes["source"].astype(object) == outcomes["defense"].astype(object))
    ).to_numpy(dtype=bool)
    adaptive = outcomes[known]
    if adaptive.empty:
        return adaptive.copy()
    sample = number(adaptive, ["model", "defense", "threat", "trial", "sample_id"])
    order = pd.factorize(outcomes["attack"])[0][known]
    won = adaptive["won"].to_numpy(dtype=bool)
    doubt = np.where(won, 0.0, _probability_of_truth(adaptive))
    ranked = np.lexsort((order, doubt, ~won, sample))
    chosen = ranked[np.flatnonzero(np.diff(sample[ranked], prepend=-1))]
    return adaptive.iloc[chosen].assign(attack=WORST_CASE, access=_widest_access(adaptive)[chosen])


def metrics(outcomes: pd.DataFrame, *, positive: int | None, classes: int) -> pd.DataFrame:
    """Return metrics.parquet: one row per (model, defense, source, attack, threat, trial, group, value).

    `positive` is the class that the binary rates speak of; with more than two classes, or None, they are macro
    averages one-vs-rest. Cells stand in order of first appearance in `outcomes`, the worst cases after them; in each
    cell `all` comes first, then each subgroup column's values in order of appearance. Undefined values are NaN.
    Raises ValueError for a missing column, a null key, a sample that appears twice in a cell, or a class out of range.
    """
    if classes < 2:
        raise ValueError(f"classes = {classes}: allowed is 2 or more")
    if positive is not None and not 0 <= positive < classes:
        raise ValueError(f"positive = {positive}: allowed is a class, 0 to {classes - 1}, or None")
    judged = pd.concat([outcomes, worst_case(outcomes)], ignore_index=True)
    if judged.empty:
        return pd.DataFrame(columns=COLUMNS)
    cell = number(judged, CELL)
    rows = _Rows.read(judged, classes, positive)
    table = pd.DataFrame(_measured(judged, cell, rows)).sort_values(["cell", "rank", "place"], ignore_index=True)
    keys = judged[[*CELL, *BUDGET]].iloc[np.unique(cell, return_index=True)[1]].reset_index(drop=True)
    joined = keys.iloc[table["cell"].to_numpy()].reset_index(drop=True).join(table)
    return joined[COLUMNS].astype({"n": "int64", "n_positive": "Int64", "trial": "int64"})


def check(outcomes: pd.DataFrame) -> None:
    """Raise ValueError where `outcomes` lacks a column, holds a null key, or holds a sample twice in one cell."""
    missing = [name for name in _NEEDED if name not in outcomes.columns]
    if missing:
        raise ValueError(f"outcomes lacks the columns {', '.join(missing)}: allowed is the run folder's format")
    keys = [*CELL, "sample_id", "patient_id"]
    empty = [name for name in keys if outcomes[name].isna().any()]
    if empty:
        raise ValueError(f"outcomes has empty values in {', '.join(empty)}: allowed are none in a key")
    if WORST_CASE in set(outcomes["attack"]):
        raise ValueError(f"outcomes holds attack = {WORST_CASE!r}: allowed is any other name, this one is derived")
    if len(np.unique(number(outcomes, [*CELL, "sample_id"]))) < len(outcomes):
        raise ValueError("outcomes holds a sample_id twice in one cell: allowed is one row per sample and cell")


@dataclass(frozen=True, slots=True)
class _Rows:
    """The columns that measures read, as arrays [n]; probabilities are [n, classes]."""

    classes: int
    positive: int | None
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    right_when_clean: NDArray[np.bool_]
    attacked: NDArray[np.bool_]
    won: NDArray[np.bool_]
    put_back: NDArray[np.float64]
    distance: NDArray[np.float64]
    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]

    @classmethod
    def read(cls, table: pd.DataFrame, classes: int, positive: int | None) -> _Rows:
        label = table["label"].to_numpy(dtype=np.int64)
        return cls(
            classes=classes,
            positive=positive if classes == 2 else None,
            label=label,
            prediction=table["adversarial_prediction"].to_numpy(dtype=np.int64),
            probabilities=_stacked(table["adversarial_probabilities"], classes),
            right_when_clean=table["clean_prediction"].to_numpy(dtype=np.int64) == label,
            attacked=(table["attack"] != NO_ATTACK).to_numpy(),
            won=table["won"].to_numpy(dtype=bool),
            put_back=table["put_back"].to_numpy(dtype=np.float64),
            distance=_own_distance(table),
            forwards=table["forwards"].to_numpy(dtype=np.float64),
            backwards=table["backwards"].to_numpy(dtype=np.float64),
        )

    def measures(self, at: NDArray[np.int64]) -> dict[str, Any]:
        """Return every measure of the rows `at` (at least one row)."""
        label, prediction, probabilities = self.label[at], self.prediction[at], self.probabilities[at]
        kind: dict[str, Any] = {"classes": self.classes, "positive": self.positive}
        right_when_clean, won = self.right_when_clean[at], self.won[at]
        found = classification.sensitivity(label, prediction, **kind)
        cleared = classification.specificity(label, prediction, **kind)
        return {
            "n": at.size,
            "n_positive": pd.NA if self.positive is None else int((label == self.positive).sum()),
            "accuracy": classification.accuracy(label, prediction),
            "balanced_accuracy": classification.balanced_accuracy(label, prediction, classes=self.classes),
            "auroc": classification.auroc(label, probabilities, positive=self.positive),
            "sensitivity": found,
            "specificity": cleared,
            "fpr": 1.0 - cleared,
            "fnr": 1.0 - found,
            "ece": classification.ece(label, prediction, probabilities),
            "attack_success_rate": _mean(won[right_when_clean]) if self.attacked[at[0]] else float("nan"),
            "put_back_share": _mean(self.put_back[at]),
            "median_distance": _median(self.distance[at][won & right_when_clean]),
            "mean_forwards": _mean(self.forwards[at]),
            "mean_backwards": _mean(self.backwards[at]),
        }


def _measured(judged: pd.DataFrame, cell: NDArray[np.int64], rows: _Rows) -> list[dict[str, Any]]:
    """Measure every cell as a whole and by each subgroup column; `rank` and `place` order the rows of a cell."""
    found = _by_value(cell, np.zeros(len(cell), dtype=np.int64), ["all"], rows, name="all", rank=0)
    columns = [name for name in judged.columns if name.startswith("group:")]
    for rank, column in enumerate(columns, start=1):
        place, values = pd.factorize(judged[column].astype(object).where(judged[column].notna(), "unknown").astype(str))
        found += _by_value(cell, place.astype(np.int64), list(values), rows, column.removeprefix("group:"), rank)
    return found


def _by_value(
    cell: NDArray[np.int64], place: NDArray[np.int64], values: list[str], rows: _Rows, name: str, rank: int
) -> list[dict[str, Any]]:
    code = cell * len(values) + place
    order = np.argsort(code, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    return [
        {"cell": cell[at[0]], "rank": rank, "place": place[at[0]], "group": name, "value": values[place[at[0]]]}
        | rows.measures(at)
        for at in parts
    ]


def number(table: pd.DataFrame, columns: list[str]) -> NDArray[np.int64]:
    """Give every row the number of its combination of `columns`, in order of first appearance: [n]."""
    code = np.zeros(len(table), dtype=np.int64)
    for column in columns:
        part, values = pd.factorize(table[column])
        code = pd.factorize(code * max(len(values), 1) + part)[0].astype(np.int64)
    return code


def _stacked(column: pd.Series[Any], classes: int) -> NDArray[np.float64]:
    """Stack a list column to [n, classes]; a missing list is a row of NaN."""
    unknown = np.full(classes, np.nan)
    lists = [unknown if row is None or isinstance(row, float) else row for row in column]
    wrong = next((len(row) for row in lists if len(row) != classes), None)
    if wrong is not None:
        raise ValueError(f"adversarial_probabilities has a row of {wrong} values: allowed is one per class, {classes}")
    return np.array(lists, dtype=np.float64).reshape(len(lists), classes)


def _probability_of_truth(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the true class's probability under attack [n]; infinity where unknown, so that it is chosen last."""
    pairs = zip(table["adversarial_probabilities"], table["label"], strict=True)
    chances = np.array([_chance(row, label) for row, label in pairs], dtype=np.float64)
    return np.where(np.isnan(chances), np.inf, chances)


def _chance(row: Any, label: int) -> float:
    """Return the label's entry of a probability list; NaN for a missing list or a class that it does not have."""
    known = row is not None and not isinstance(row, float) and 0 <= label < len(row)
    return float(row[label]) if known else float("nan")


def _widest_access(adaptive: pd.DataFrame) -> NDArray[np.object_]:
    known = adaptive["access"].astype(object).map({name: rank for rank, name in enumerate(_STRENGTH)})
    widest = known.groupby(number(adaptive, ["model", "defense", "threat", "trial"])).transform("min")
    named = widest.map(dict(enumerate(_STRENGTH)))
    return named.where(named.notna(), adaptive["access"].astype(object)).to_numpy(dtype=object)


def _own_distance(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return each row's distance in its threat's own norm [n]; NaN where that norm has no column."""
    distance = np.full(len(table), np.nan)
    for norm in ("linf", "l2", "l1"):
        if f"distance_{norm}" in table.columns:
            mine = (table["norm"] == norm).to_numpy()
            distance[mine] = table[f"distance_{norm}"].to_numpy(dtype=np.float64)[mine]
    return distance


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
