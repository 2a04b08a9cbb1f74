"""Fields that several sections share, as plain dictionaries with the same keys whatever could be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from titer.stats.comparisons import PairedComparison, holm
from titer.stats.evidence import Evidence, Setting
from titer.stats.intervals import TrialSummary
from titer.stats.mcnemar import McNemar

Row = dict[str, Any]


def identity(evidence: Evidence, setting: Setting) -> Row:
    """Return the setting's labels and its budget."""
    return setting._asdict() | dict(evidence.budgets[setting])


def trial_fields(prefix: str, summary: TrialSummary) -> Row:
    """Return a summary over trials as `<prefix>_mean`, `_sd`, `_ci_low`, `_ci_high`, `_n_trials`, `_reason`."""
    return {
        f"{prefix}_mean": summary.mean,
        f"{prefix}_sd": summary.sd,
        f"{prefix}_ci_low": summary.low,
        f"{prefix}_ci_high": summary.high,
        f"{prefix}_n_trials": summary.n,
        f"{prefix}_reason": summary.reason,
    }


def paired_fields(compared: PairedComparison) -> Row:
    """Return a paired comparison's test and effects; the two means are named by the section."""
    left_out = ("n", "mean_before", "mean_after", "normality", "reason")
    kept = {name: value for name, value in asdict(compared).items() if name not in left_out}
    shape = compared.normality
    tested = {"shapiro_w": shape.statistic, "shapiro_p": shape.p, "shapiro_reason": shape.reason}
    return {"n_trials": compared.n} | kept | tested | {"reason": compared.reason}


def mcnemar_fields(results: Mapping[int, McNemar]) -> Row:
    """Return the first trial's McNemar test and the median p over trials.

    Trials judge the same patients again, so their samples may not be pooled into one table; the median p has no
    test of its own behind it and only says whether the first trial is typical.
    """
    trial = min(results, default=None)
    first = results[trial] if trial is not None else McNemar("not applicable", 0, 0, 0, float("nan"), float("nan"))
    p = [each.p for each in results.values() if not np.isnan(each.p)]
    return {
        "mcnemar_trial": trial,
        "mcnemar_test": first.test,
        "mcnemar_n": first.n,
        "mcnemar_lost": first.lost,
        "mcnemar_gained": first.gained,
        "mcnemar_statistic": first.statistic,
        "mcnemar_p": first.p,
        "mcnemar_median_p": float(np.median(p)) if p else float("nan"),
    }


def with_holm(rows: Sequence[Row], alpha: float) -> list[Row]:
    """Return the rows with `p_holm` and `significant`, and `mcnemar_p_holm` where they hold McNemar's p.

    The family is all rows given.
    """
    corrected = holm([row["p"] for row in rows])
    found = [row | {"p_holm": float(p), "significant": bool(p < alpha)} for row, p in zip(rows, corrected, strict=True)]
    if not rows or "mcnemar_p" not in rows[0]:
        return found
    samples = holm([row["mcnemar_p"] for row in rows])
    return [row | {"mcnemar_p_holm": float(p)} for row, p in zip(found, samples, strict=True)]
