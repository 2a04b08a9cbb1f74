"""From one row per sample (outcomes.parquet) to one row per cell and subgroup (metrics.parquet)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titer.stats import measures

CELL = ["model", "defense", "source", "attack", "threat", "trial"]
BUDGET = ["threat_family", "norm", "eps", "unit", "access"]
MEASURES = measures.MEASURES
WORST_CASE = measures.WORST_CASE
NO_ATTACK = measures.NO_ATTACK
COLUMNS = [*CELL, "group", "value", *BUDGET, "goal", *MEASURES]
ANY_ERROR = "any-error"
DEFAULTS: dict[str, Any] = {
    "goal": ANY_ERROR, "eligible": True, "clean_error": float("nan"), "adversarial_error": float("nan"),
}  # fmt: skip
"""Columns of outcomes that older runs lack, and what their rows mean without them."""
_NEEDED = [
    *CELL, *BUDGET, "sample_id", "patient_id", "label", "clean_prediction", "adversarial_prediction",
    "adversarial_probabilities", "won", "put_back", "forwards", "backwards",
]  # fmt: skip
_STRENGTH = ("gradient", "scores", "decision")


def worst_case(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the worst case over the adaptive attacks: one row per (model, defense, threat, trial, sample).

    The row is the winning attack's, the first in order of appearance; where none won, that of the attack which left
    the truth the lowest probability, or the largest error where there is no probability (ties and unknown values: the
    first). A row that is not eligible for the threat's goal is never won. `attack` reads `worst-case` and `access` is
    the widest that any of the attacks had. Columns are those of `outcomes`, costs included: they are the judged row's,
    not the sum over the attacks. Raises ValueError for a damaged table.
    """
    check(outcomes)
    whole = completed(outcomes)
    known = (
        (outcomes["attack"] != NO_ATTACK) & (outcomes["source"].astype(object) == outcomes["defense"].astype(object))
    ).to_numpy(dtype=bool)
    adaptive = outcomes[known]
    if adaptive.empty:
        return adaptive.copy()
    sample = number(adaptive, ["model", "defense", "threat", "trial", "sample_id"])
    order = pd.factorize(outcomes["attack"])[0][known]
    eligible = whole["eligible"].to_numpy()[known]
    won = adaptive["won"].to_numpy(dtype=bool) & eligible
    doubt = np.where(won | ~eligible, 0.0, _doubt(whole[known]))
    ranked = np.lexsort((order, doubt, ~won, sample))
    chosen = ranked[np.flatnonzero(np.diff(sample[ranked], prepend=-1))]
    access = _widest_access(adaptive)[chosen]
    return adaptive.iloc[chosen].assign(attack=WORST_CASE, access=access, won=won[chosen])


def completed(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return `outcomes` with every column of `DEFAULTS`, and their values where a row has none."""
    kinds = {"goal": object, "eligible": bool, "clean_error": np.float64, "adversarial_error": np.float64}
    whole = outcomes.copy(deep=False)  # the columns that are there are shared: tables of runs are large
    for name, value in DEFAULTS.items():
        given = outcomes[name] if name in outcomes.columns else pd.Series(value, index=outcomes.index)
        known = given.astype(object).where(given.notna(), value) if given.isna().any() else given
        whole[name] = known.astype(kinds[name])
    return whole


def metrics(outcomes: pd.DataFrame, *, positive: int | None, classes: int, findings: bool = False) -> pd.DataFrame:
    """Return metrics.parquet: one row per (model, defense, source, attack, threat, trial, group, value).

    `positive` is the class that the binary rates speak of; with more than two classes, or None, they are macro
    averages one-vs-rest. Where the rows have an error (a value, a mask, several findings) neither argument matters, and
    there are no such rates, save in one case: `findings` says that the output is several findings, and then the rows
    under a goal to hide or to invent one say whether it is there (1) or not (0), and have its rates.

    Cells stand in order of first appearance in `outcomes`, the worst cases after them; in each cell `all` comes first,
    then each subgroup column's values in order of appearance. Undefined values are NaN. Raises ValueError for a missing
    column, a null key, a sample that appears twice in a cell, a class out of range, or two goals under one threat.
    """
    whole = completed(outcomes)
    if not has_errors(whole):
        _check_classes(classes, positive)
    worst = worst_case(whole)
    read = [*_NEEDED, *DEFAULTS, *(name for name in whole.columns if name.startswith(("distance_", "group:")))]
    judged = pd.concat([whole[read], worst[read]], ignore_index=True)
    if judged.empty:
        return pd.DataFrame(columns=COLUMNS)
    cell = number(judged, CELL)
    rows = measures.Rows.read(judged, cell, classes, positive, findings=findings)
    table = pd.DataFrame(_measured(judged, cell, rows)).sort_values(["cell", "rank", "place"], ignore_index=True)
    keys = judged[[*CELL, *BUDGET, "goal"]].iloc[np.unique(cell, return_index=True)[1]].reset_index(drop=True)
    joined = keys.iloc[table["cell"].to_numpy()].reset_index(drop=True).join(table)
    return joined[COLUMNS].astype({"n": "int64", "n_eligible": "int64", "n_positive": "Int64", "trial": "int64"})


def has_errors(outcomes: pd.DataFrame) -> bool:
    """Return whether rows are graded by an error instead of a class: values, masks, several findings."""
    return "clean_error" in outcomes.columns and bool(outcomes["clean_error"].notna().any())


def _check_classes(classes: int, positive: int | None) -> None:
    if classes < 2:
        raise ValueError(f"classes = {classes}: allowed is 2 or more")
    if positive is not None and not 0 <= positive < classes:
        raise ValueError(f"positive = {positive}: allowed is a class, 0 to {classes - 1}, or None")


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
    verdicts = ("label", "clean_prediction", "adversarial_prediction")
    graded = [name for name in verdicts if not pd.api.types.is_integer_dtype(outcomes[name])]
    if graded:
        raise ValueError(f"outcomes has other values than whole numbers in {', '.join(graded)}: allowed is a class")
    if "goal" in outcomes.columns:
        attacked = outcomes.loc[outcomes["attack"] != NO_ATTACK, ["threat", "goal"]]
        pairs = attacked.astype(object).dropna().drop_duplicates()
        mixed = sorted(set(pairs.loc[pairs["threat"].duplicated(), "threat"]))
        if mixed:
            raise ValueError(f"outcomes has several goals under {', '.join(mixed)}: allowed is one goal per threat")


def _measured(judged: pd.DataFrame, cell: NDArray[np.int64], rows: measures.Rows) -> list[dict[str, Any]]:
    """Measure every cell as a whole and by each subgroup column; `rank` and `place` order the rows of a cell."""
    found = _by_value(cell, np.zeros(len(cell), dtype=np.int64), ["all"], rows, name="all", rank=0)
    columns = [name for name in judged.columns if name.startswith("group:")]
    for rank, column in enumerate(columns, start=1):
        place, values = pd.factorize(judged[column].astype(object).where(judged[column].notna(), "unknown").astype(str))
        found += _by_value(cell, place.astype(np.int64), list(values), rows, column.removeprefix("group:"), rank)
    return found


def _by_value(
    cell: NDArray[np.int64], place: NDArray[np.int64], values: list[str], rows: measures.Rows, name: str, rank: int
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


def _doubt(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return what a stronger attack makes smaller [n]: the truth's probability, or the error turned round.

    Of rows with an error, only those about one finding have such a probability, and it is what their goal is about.
    """
    truth = _probability_of_truth(table)
    if not has_errors(table):
        return truth
    error = table["adversarial_error"].to_numpy(dtype=np.float64)
    return np.where(np.isfinite(truth), truth, np.where(np.isnan(error), np.inf, -error))


def _probability_of_truth(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the true class's probability under attack [n]; infinity where unknown, so that it is chosen last."""
    pairs = zip(table["adversarial_probabilities"], table["label"], strict=True)
    chances = np.array([_chance(row, label) for row, label in pairs], dtype=np.float64)
    return np.where(np.isnan(chances), np.inf, chances)


def _chance(row: Any, label: int) -> float:
    """Return the label's entry of a probability list; NaN for a missing list or a class that it does not have."""
    known = row is not None and not isinstance(row, float) and 0 <= label < len(row)
    return float(row[label]) if known and row[label] is not None else float("nan")


def _widest_access(adaptive: pd.DataFrame) -> NDArray[np.object_]:
    known = adaptive["access"].astype(object).map({name: rank for rank, name in enumerate(_STRENGTH)})
    widest = known.groupby(number(adaptive, ["model", "defense", "threat", "trial"])).transform("min")
    named = widest.map(dict(enumerate(_STRENGTH)))
    return named.where(named.notna(), adaptive["access"].astype(object)).to_numpy(dtype=object)
