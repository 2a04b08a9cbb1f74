"""Confidence intervals, each of one kind of chance: retraining (trials), or which patients were in the test set.

An interval that cannot be computed is NaN with its reason, never one of zero width: five equal trials do not prove
that a sixth would be equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.float64]
RESAMPLES = 2000
FEWEST_PATIENTS = 10
BOOTSTRAP = "patient-clustered bootstrap (percentile)"
EXACT = "Clopper-Pearson over patients"
_WEIGHTS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence limits, in the values' unit; NaN limits come with a `reason`."""

    estimate: float
    low: float
    high: float
    method: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """Mean, sample SD (n - 1) and t interval of one figure over `n` trials, in the figure's unit."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    reason: str | None = None


def is_constant(values: ArrayLike) -> bool:
    """Say whether all values are equal up to rounding error (1e-12, relative above 1).

    Without the tolerance, 0.9 - 0.4 and 0.8 - 0.3 differ in the sixteenth digit, and a t test would call that proof.
    """
    array = np.asarray(values, dtype=np.float64)
    return bool(array.size == 0 or np.ptp(array) <= 1e-12 * max(1.0, float(np.abs(array).max())))


def over_trials(
    values: ArrayLike, *, confidence: float = 0.95, bounds: tuple[float, float] | None = None
) -> TrialSummary:
    """Summarise a figure over trials [n] with Student's t interval (Student 1908), clipped to `bounds`.

    NaN values are trials in which the figure was undefined; they are left out and `n` says how many remain. The
    interval covers what varies between trials (seeds of training and attack; the split where there is no fixed test
    set). Over a fixed test set it says nothing about other patients. It is NaN for fewer than two values and where
    all are equal. Raises ValueError for a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    array = _vector("values", values)
    known = array[~np.isnan(array)]
    n = known.size
    mean = float(known.mean()) if n else float("nan")
    if n < 2:
        reason = "undefined in every trial" if n == 0 else "one trial only: nothing varies between trials"
        return TrialSummary(n, mean, float("nan"), float("nan"), float("nan"), reason)
    if is_constant(known):
        reason = "every trial gave the same value: a t interval would have no width"
        return TrialSummary(n, mean, 0.0, float("nan"), float("nan"), reason)
    sd = float(known.std(ddof=1))
    half = student_quantile(n - 1, confidence) * sd / float(np.sqrt(n))
    low, high = bounds or (-np.inf, np.inf)
    return TrialSummary(n, mean, sd, float(max(mean - half, low)), float(min(mean + half, high)))


def student_quantile(degrees: float, confidence: float) -> float:
    """Return the two-sided critical value of Student's t with `degrees` of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def wilson(successes: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927). See `clopper_pearson` for the arguments."""
    return _binomial(successes, n, confidence, "wilson", "Wilson score")


def clopper_pearson(successes: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a proportion (Clopper and Pearson 1934), at least `confidence` for every true value.

    It takes `n` independent observations: patients, not images. Fractions are allowed, for an effective sample size.
    NaN for n = 0. Raises ValueError unless 0 <= successes <= n.
    """
    return _binomial(successes, n, confidence, "beta", "Clopper-Pearson")


def cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of mean(values), drawing whole clusters (Davison and Hinkley 1997, 3.8).

    `values` [n], without NaN; `clusters` [n] names each row's patient. Patients are drawn, not rows: two images of
    a patient are not independent. The interval covers which patients were in the test set. Percentile limits are
    somewhat narrow below about 30 patients. NaN for fewer than two clusters and where all values are equal.
    Raises ValueError for lengths that differ, NaN, or settings out of range.
    """
    array, names = _vector("values", values), np.asarray(clusters)
    if array.shape != names.shape:
        raise ValueError(f"clusters has shape {names.shape}: allowed is that of values, {array.shape}")
    if np.isnan(array).any():
        raise ValueError("values holds NaN: allowed are numbers")
    estimate = float(array.mean()) if array.size else float("nan")
    found, code = np.unique(names, return_inverse=True)
    if found.size < 2 or is_constant(array):
        reason = "fewer than two patients" if found.size < 2 else "all values are equal: resampling cannot vary them"
        return Interval(estimate, float("nan"), float("nan"), BOOTSTRAP, reason)
    sums = np.bincount(code, weights=array).astype(np.float64)
    counts = np.bincount(code).astype(np.float64)
    limits = ratio_bootstrap(sums[:, None], counts[:, None], confidence=confidence, resamples=resamples, seed=seed)
    return Interval(estimate, float(limits[0, 0]), float(limits[0, 1]), BOOTSTRAP)


def ratio_bootstrap(
    sums: Real, counts: Real, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Real:
    """Return percentile limits [columns, 2] of sum(sums) / sum(counts) per column, drawing the rows (patients).

    `sums` and `counts` are [patients, columns]. All columns share the same draws, so a column's limits do not depend
    on which others are asked for. A resample without any counted row is left out; NaN where none is left.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples = {resamples}: allowed is 1 or more")
    patients, columns = sums.shape
    rng = np.random.default_rng(seed)
    means = np.full((resamples, columns), np.nan)
    step = max(1, _WEIGHTS_AT_ONCE // max(patients, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        weights = rng.multinomial(patients, np.full(patients, 1 / patients), size=size).astype(np.float64)
        drawn = weights @ counts
        np.divide(weights @ sums, drawn, out=means[start : start + size], where=drawn > 0)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    limits = [_quantiles(means[:, column], tails) for column in range(columns)]
    return np.array(limits, dtype=np.float64).reshape(columns, 2)


def patient_intervals(
    sums: Real, counts: Real, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Return an interval per column for a proportion over rows that are clustered in patients.

    `sums` [patients, columns] are the patients' successes, `counts` their rows. The clustered bootstrap, except where
    fewer than 10 patients have any success or fewer than 10 any failure: resampling 0 of 600 would give [0, 0]. There
    the exact binomial interval over the effective number of patients (Kish 1965: counts squared over squares) stands
    in. It is wider than need be: for a given mean no patient's share varies more than one coin toss.
    """
    limits = ratio_bootstrap(sums, counts, confidence=confidence, resamples=resamples, seed=seed)
    return [_patient_interval(sums[:, i], counts[:, i], limits[i], confidence) for i in range(sums.shape[1])]


def _patient_interval(sums: Real, counts: Real, limits: Real, confidence: float) -> Interval:
    total = float(counts.sum())
    if total == 0:
        return Interval(float("nan"), float("nan"), float("nan"), "not applicable", "no row is counted")
    estimate = float(sums.sum()) / total
    if min(int((sums > 0).sum()), int((sums < counts).sum())) >= FEWEST_PATIENTS:
        return Interval(estimate, float(limits[0]), float(limits[1]), BOOTSTRAP)
    effective = total**2 / float((counts**2).sum())
    exact = clopper_pearson(estimate * effective, effective, confidence=confidence)
    return Interval(estimate, exact.low, exact.high, EXACT)


def _quantiles(values: Real, tails: list[float]) -> Any:
    known = values[~np.isnan(values)]
    return np.quantile(known, tails) if known.size else [np.nan, np.nan]


def _binomial(successes: float, n: float, confidence: float, method: str, name: str) -> Interval:
    from statsmodels.stats.proportion import proportion_confint

    _check_confidence(confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes}: allowed is 0 to n = {n}")
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), name, "no observation")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method=method)
    estimate = successes / n
    # rounding inside the quantile functions may leave a limit a hair past the estimate or past 0 or 1
    return Interval(estimate, min(max(float(low), 0.0), estimate), max(min(float(high), 1.0), estimate), name)


def _vector(name: str, values: ArrayLike) -> Real:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: allowed is one value per row, [n]")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence}: allowed is more than 0 and less than 1")
