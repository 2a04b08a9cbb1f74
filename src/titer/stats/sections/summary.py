"""Section `summary`: every figure of every setting over trials, with the interval over patients for two proportions."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from titer.stats.evidence import Evidence, Judged, Setting
from titer.stats.intervals import Interval, over_trials, patient_intervals
from titer.stats.sections.fields import Row, identity
from titer.stats.tables import NO_ATTACK

METRICS = (
    "accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "attack_success_rate", "ece",
)  # fmt: skip
UNBOUNDED = ("clean_error", "adversarial_error", "median_queries")
"""Figures of some settings only: they are no shares, and only their lower bound is known to be 0."""
_NOT_POOLED = Interval(float("nan"), float("nan"), float("nan"), "not applicable")
Real = NDArray[np.float64]
Wanted = tuple[Setting, str]


def summary(evidence: Evidence) -> list[Row]:
    """Return one row per setting and metric: mean, SD and t interval over trials, shares clipped to [0, 1].

    `pooled_*` is the interval over patients of the share over all trials' rows, for accuracy and attack success rate:
    it covers which patients were in the test set, given the models that were trained; `ci_*` covers retraining.
    """
    pooled = _pooled(evidence)
    return [
        _row(evidence, setting, name, pooled)
        for setting in evidence.figures
        for name in [*METRICS, *(name for name in UNBOUNDED if evidence.figure(setting, name))]
    ]


def _row(evidence: Evidence, setting: Setting, name: str, pooled: dict[Wanted, Interval]) -> Row:
    values = list(evidence.figure(setting, name).values())
    found = over_trials(values, confidence=1 - evidence.alpha, bounds=(0.0, np.inf if name in UNBOUNDED else 1.0))
    over_patients = pooled.get((setting, name), _NOT_POOLED)
    return identity(evidence, setting) | {
        "metric": name,
        "n_trials": found.n,
        "mean": found.mean,
        "sd": found.sd,
        "ci_low": found.low,
        "ci_high": found.high,
        "ci_reason": found.reason,
        "pooled_ci_low": over_patients.low,
        "pooled_ci_high": over_patients.high,
        "pooled_method": over_patients.method,
    }


def _pooled(evidence: Evidence) -> dict[Wanted, Interval]:
    """Resample settings that cover the same patients together, so that each draw of patients is made once."""
    columns: dict[bytes, list[tuple[Wanted, Real, Real]]] = defaultdict(list)
    for setting, trials in evidence.judged.items():
        for name, sums, counts, present in _per_patient(setting, list(trials.values()), evidence.patients):
            columns[present.tobytes()].append(((setting, name), sums[present], counts[present]))
    found: dict[Wanted, Interval] = {}
    for group in columns.values():
        sums, counts = np.stack([each[1] for each in group], axis=1), np.stack([each[2] for each in group], axis=1)
        intervals = patient_intervals(sums, counts, confidence=1 - evidence.alpha, seed=evidence.seed)
        found |= {wanted: interval for (wanted, _, _), interval in zip(group, intervals, strict=True)}
    return found


def _per_patient(
    setting: Setting, trials: list[Judged], patients: int
) -> list[tuple[str, Real, Real, NDArray[np.bool_]]]:
    """Return per metric each patient's successes and counted rows over all trials, and who was tested at all."""
    patient = np.concatenate([each.patient for each in trials])
    right = np.concatenate([each.right for each in trials])
    counts = np.bincount(patient, minlength=patients).astype(np.float64)
    present = counts > 0
    found = [("accuracy", np.bincount(patient, weights=right, minlength=patients).astype(np.float64), counts, present)]
    if setting.attack != NO_ATTACK:
        clean = np.concatenate([each.right_when_clean & each.eligible for each in trials])
        won = np.concatenate([each.won for each in trials])
        fooled = np.bincount(patient, weights=won & clean, minlength=patients).astype(np.float64)
        at_stake = np.bincount(patient, weights=clean, minlength=patients).astype(np.float64)
        found.append(("attack_success_rate", fooled, at_stake, present))
    return found
