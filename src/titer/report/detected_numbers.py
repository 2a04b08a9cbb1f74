"""Shares and AUROC of detectors over trials, each with the wider of two intervals: over patients, or over trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from titer.report.numbers import NOTHING, Estimate

if TYPE_CHECKING:
    from titer.stats.intervals import Interval


def thresholded(rows: pd.DataFrame, everything: pd.DataFrame, rate: float | None) -> pd.DataFrame:
    """Return `rows` with a column `alarm`: at the run's own thresholds, or at those for another nominal rate.

    Those come from the validation rows of each trial, which stand in `everything`. Where one trial has too few of them
    for the rate, no row is returned.
    """
    if rate is None or not len(rows):
        return rows.assign(alarm=rows["raised"].astype(bool))
    from titer.stats.alarms import thresholds

    parts = []
    for trial, some in rows.groupby("trial", sort=True):
        of_trial = everything[(everything["trial"] == trial) & (everything["part"] == "validation")]
        clean = of_trial["score"].to_numpy()
        if rate * (len(clean) + 1) < 1:
            return rows.iloc[:0].assign(alarm=False)
        parts.append(some.assign(alarm=~(some["score"].to_numpy() <= float(thresholds(clean, rate)[0]))))
    return pd.concat(parts)


def share(rows: pd.DataFrame) -> Estimate:
    """Return the share of rows whose `alarm` is raised."""
    if not len(rows):
        return NOTHING
    from titer.stats.alarms import share as of_patients

    flags = rows["alarm"].astype(float)
    pooled = of_patients(flags.to_numpy(), rows["patient_id"].astype(str).tolist())
    return _wider(pooled, [float(one.mean()) for _, one in flags.groupby(rows["trial"])])


def unnoticed(rows: pd.DataFrame, *, watching: bool = True) -> Estimate:
    """Return the share of rows at stake that any attack fools without an alarm; with one, too, if unwatched."""
    mine = rows[rows["at_stake"].astype(bool)]
    if not len(mine):
        return NOTHING
    through = mine["won"].astype(bool) & ~(mine["raised"].astype(bool) & watching)
    keys = ["trial", "patient_id", "sample_id"]
    return share(mine.assign(alarm=through).groupby(keys, sort=False)["alarm"].any().reset_index())


def auroc(clean: pd.DataFrame, finds: pd.DataFrame) -> Estimate:
    """Return the mean AUROC of finds against clean rows over the trials that have any find."""
    from titer.stats.alarms import Scored, auroc_over_trials
    from titer.stats.alarms import auroc as of_one

    trials = []
    for trial, some in finds.groupby("trial", sort=True):
        honest = clean[clean["trial"] == trial]
        if len(honest):
            patients = (honest["patient_id"].astype(str).tolist(), some["patient_id"].astype(str).tolist())
            trials.append(Scored(honest["score"].to_numpy(), some["score"].to_numpy(), *patients))
    if not trials:
        return NOTHING
    return _wider(auroc_over_trials(trials), [of_one(one.clean, one.attacked) for one in trials])


def over_trials(values: Sequence[float], bound: float = math.inf) -> Estimate:
    """Return the mean of one number per trial with Student's interval between 0 and `bound`."""
    from titer.stats.intervals import over_trials as summary

    if not values:
        return NOTHING
    found = summary(values, bounds=(0.0, bound))
    low, high = _known(found.low), _known(found.high)
    sd = _known(found.sd)
    return Estimate(mean=found.mean, low=low, high=high, over="" if low is None else "trials", sd=sd, n_trials=found.n)


def _wider(pooled: Interval, values: Sequence[float]) -> Estimate:
    """Return the pooled estimate with the wider interval."""
    low, high = _known(pooled.low), _known(pooled.high)
    trials = over_trials(values, 1.0)
    ends = (low, high, "patients")
    if (
        trials.low is not None
        and trials.high is not None
        and (low is None or high is None or trials.high - trials.low > high - low)
    ):
        ends = (trials.low, trials.high, "trials")
    over = "" if ends[0] is None else ends[2]
    return Estimate(mean=pooled.estimate, low=ends[0], high=ends[1], over=over, sd=trials.sd, n_trials=len(values))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
