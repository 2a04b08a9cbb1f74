"""The evidence that every section of statistics.json reads: verdicts per sample, figures per trial, both by setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titer.stats import tables


class Setting(NamedTuple):
    """What was judged (model, defense), where the attack searched (source), and with what (attack, threat)."""

    model: str
    defense: str
    source: str
    attack: str
    threat: str

    @property
    def adaptive(self) -> bool:
        """Whether this is an attack that searched on the model that was judged."""
        return self.attack != tables.NO_ATTACK and self.source == self.defense


@dataclass(frozen=True, slots=True)
class Judged:
    """One trial's samples of a setting, in order of `sample` (a code shared by all settings): arrays [n]."""

    sample: NDArray[np.int64]
    patient: NDArray[np.int64]
    right_when_clean: NDArray[np.bool_]
    right: NDArray[np.bool_]
    eligible: NDArray[np.bool_]
    won: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Verdicts and figures by setting and trial, in the order of the tables, with the settings of the analysis."""

    judged: Mapping[Setting, Mapping[int, Judged]]
    figures: Mapping[Setting, Mapping[int, Mapping[str, float]]]
    budgets: Mapping[Setting, Mapping[str, Any]]
    clean: Mapping[tuple[str, str], Setting]
    trials: tuple[int, ...]
    patients: int
    alpha: float
    seed: int

    def figure(self, setting: Setting | None, name: str) -> dict[int, float]:
        """Return `name` per trial in which it is defined; empty for a setting that was not run."""
        found = self.figures.get(setting, {}) if setting else {}
        return {trial: values[name] for trial, values in found.items() if not np.isnan(values[name])}

    def clean_figure(self, setting: Setting, name: str) -> dict[int, float]:
        """Return `name` per trial on the clean rows of the setting's model and defence."""
        return self.figure(self.clean.get((setting.model, setting.defense)), name)

    def settings(self, *, attacked: bool = True) -> list[Setting]:
        """Return the settings under attack, or the clean ones, in the tables' order."""
        return [each for each in self.figures if (each.attack != tables.NO_ATTACK) == attacked]

    def samples(self, setting: Setting | None) -> Mapping[int, Judged]:
        """Return the verdicts per trial; empty for a setting that was not run."""
        return self.judged.get(setting, {}) if setting else {}


def gather(outcomes: pd.DataFrame, metrics: pd.DataFrame, *, alpha: float, seed: int) -> Evidence:
    """Build the evidence from outcomes.parquet and metrics.parquet; the worst cases are derived from the outcomes."""
    whole = metrics[metrics["group"] == "all"]
    figures: dict[Setting, dict[int, Mapping[str, float]]] = {}
    budgets: dict[Setting, Mapping[str, Any]] = {}
    names = [name for name in tables.MEASURES if name not in ("n", "n_positive", "n_eligible")]
    for row in whole.to_dict("records"):
        setting = Setting(*(str(row[key]) for key in Setting._fields))
        figures.setdefault(setting, {})[int(row["trial"])] = {name: float(row[name]) for name in names}
        budgets.setdefault(setting, {name: row[name] for name in ("threat_family", "norm", "eps", "unit", "goal")})
    clean: dict[tuple[str, str], Setting] = {}
    for setting in figures:
        if setting.attack == tables.NO_ATTACK:
            clean.setdefault((setting.model, setting.defense), setting)
    return Evidence(
        judged=_judged(outcomes),
        figures=figures,
        budgets=budgets,
        clean=clean,
        trials=tuple(sorted({int(trial) for trial in whole["trial"]})),
        patients=int(outcomes["patient_id"].nunique()),
        alpha=alpha,
        seed=seed,
    )


def matched(*series: Mapping[int, float]) -> tuple[NDArray[np.float64], ...]:
    """Return the values of each series over the trials that all of them have, in order of trial: arrays [n]."""
    common = sorted(set.intersection(*(set(each) for each in series))) if series else []
    return tuple(np.array([each[trial] for trial in common], dtype=np.float64) for each in series)


def same_samples(one: Judged, two: Judged) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places in `one` and in `two` of the samples that both hold, in one order."""
    _, first, second = np.intersect1d(one.sample, two.sample, assume_unique=True, return_indices=True)
    return first, second


def _judged(outcomes: pd.DataFrame) -> dict[Setting, dict[int, Judged]]:
    verdicts = ["label", "clean_prediction", "adversarial_prediction", "eligible", "won"]
    needed = [*tables.CELL, "sample_id", "patient_id", *verdicts]
    whole = tables.completed(outcomes)
    table = pd.concat([whole[needed], tables.worst_case(whole)[needed]], ignore_index=True)
    if table.empty:
        return {}
    cell, sample = tables.number(table, tables.CELL), tables.number(table, ["sample_id"])
    order = np.lexsort((sample, cell))
    label = table["label"].to_numpy(dtype=np.int64)
    eligible = table["eligible"].to_numpy(dtype=bool)
    columns: tuple[NDArray[Any], ...] = (
        sample,
        tables.number(table, ["patient_id"]),
        table["clean_prediction"].to_numpy(dtype=np.int64) == label,
        table["adversarial_prediction"].to_numpy(dtype=np.int64) == label,
        eligible,
        table["won"].to_numpy(dtype=bool) & eligible,
    )
    found: dict[Setting, dict[int, Judged]] = {}
    keys = table[tables.CELL].to_numpy(dtype=object)
    for at in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        *setting, trial = keys[at[0]]
        found.setdefault(Setting(*map(str, setting)), {})[int(trial)] = Judged(*(column[at] for column in columns))
    return found
