"""What an alarm is worth: thresholds at a stated false-positive rate, AUROC, true-positive rates, alerts per 1000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from titer.core.errors import Incompatible, SpecError
from titer.stats.intervals import Interval, patient_intervals

Real = NDArray[np.float64]
STUDIES = 1000
RATES = (0.01, 0.05)
RESAMPLES = 1000
_BOOTSTRAP = "patient-clustered bootstrap (percentile)"


def thresholds(clean: ArrayLike, rate: float) -> Real:
    """Return float64[D] for clean scores [N, D]: the limits above which any of D alarms is raised for `rate` of rows.

    With one alarm it is the k-th largest clean score, k = floor(rate (N + 1)): a fresh clean row is above it with a
    chance of at most `rate`, whatever the scores' distribution (Vovk, Gammerman, Shafer 2005, section 2.2; equal scores
    raise no alarm). With several, it is the k-th largest score of each, for the largest k of two: Bonferroni's
    floor(rate (N + 1) / D), and the k at which fewer than floor(rate (N + 1)) clean rows are among any alarm's k
    highest, which is more where alarms agree.

    Raises:
        SpecError: a rate outside (0, 1).
        Incompatible: fewer rows than the rate needs (D / rate - 1 of them suffice), or scores that are no numbers.
    """
    if not 0 < rate < 1:
        raise SpecError(f"false-positive rate = {rate:g}: allowed is more than 0 and less than 1")
    scores = np.asarray(clean, dtype=np.float64)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if not np.isfinite(scores).all():
        raise Incompatible("a detector's scores of clean rows hold values that are no finite numbers")
    rows, width = scores.shape
    allowed = int(np.floor(rate * (rows + 1) + 1e-9))
    # A fresh row is among the k highest of an alarm as often as one of N + 1 exchangeable rows is; it counts as one.
    reached = np.cumsum(np.bincount(_best_rank(scores), minlength=rows + 1)[1:])
    agreeing = int((reached <= allowed - 1).sum()) if width > 1 else 0
    place = max(allowed // width, agreeing)
    if place < 1:
        needed = int(np.ceil(width / rate - 1 - 1e-9))
        raise Incompatible(
            f"{rows} clean rows are few for {width} detectors at a false-positive rate of {rate:g}; {needed} suffice"
        )
    return np.asarray(-np.sort(-scores, axis=0)[min(place, rows) - 1], dtype=np.float64)


def _best_rank(scores: Real) -> NDArray[np.int64]:
    """Return int64[N], each row's best place in any column, 1 for the highest score; equal scores share the worst."""
    order = np.sort(scores, axis=0)
    places = [len(scores) - np.searchsorted(order[:, d], scores[:, d], side="left") for d in range(scores.shape[1])]
    return np.asarray(np.min(places, axis=0), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What a detector did on clean and attacked rows.

    `tpr` and `fpr` hold an Interval for each nominal false-positive rate; `alerts` the false alarms in 1000 clean
    studies at each.
    """

    auroc: Interval
    tpr: Mapping[float, Interval]
    fpr: Mapping[float, Interval]
    alerts: Mapping[float, float]


def detection(
    calibration: ArrayLike,
    clean: ArrayLike,
    attacked: ArrayLike,
    *,
    clean_patients: Sequence[str],
    attacked_patients: Sequence[str],
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> Detection:
    """Measure scores [n] of clean and [m] of attacked rows at the thresholds that the calibration's [k] set.

    Intervals are over patients: a patient's studies are not independent. A rate that the calibration is too small for
    is left out.

    Raises:
        Incompatible: no clean or no attacked row.
    """
    honest, fooled = (np.asarray(one, dtype=np.float64) for one in (clean, attacked))
    if not len(honest) or not len(fooled):
        raise Incompatible(f"a detector is measured on clean and attacked rows, not on {len(honest)} and {len(fooled)}")
    limits = {rate: float(thresholds(calibration, rate)[0]) for rate in rates if rate * (np.size(calibration) + 1) >= 1}
    tpr = {rate: share(~(fooled <= limit), attacked_patients) for rate, limit in limits.items()}
    fpr = {rate: share(~(honest <= limit), clean_patients) for rate, limit in limits.items()}
    return Detection(
        auroc=auroc_interval(honest, fooled, clean_patients, attacked_patients, seed=seed),
        tpr=tpr,
        fpr=fpr,
        alerts={rate: alerts(one.estimate) for rate, one in fpr.items()},
    )


def share(raised: ArrayLike, patients: Sequence[str]) -> Interval:
    """Return the share of rows bool[n] with an alarm, with its interval over patients."""
    _, code = np.unique(np.asarray(patients), return_inverse=True)
    counts = np.bincount(code).astype(np.float64)[:, None]
    sums = np.asarray(np.bincount(code, weights=np.asarray(raised, dtype=np.float64))[:, None], dtype=np.float64)
    return patient_intervals(sums, counts)[0]


def alerts(fpr: float, tpr: float = 0.0, *, prevalence: float = 0.0) -> float:
    """Return the alarms in 1000 studies, of which a share `prevalence` is attacked; by default none is."""
    if not 0 <= prevalence <= 1:
        raise SpecError(f"prevalence = {prevalence:g}: allowed is 0 to 1")
    return STUDIES * ((1 - prevalence) * fpr + prevalence * tpr)


def auroc(clean: ArrayLike, attacked: ArrayLike) -> float:
    """Return the chance that an attacked row scores above a clean one, ties counted half (Mann and Whitney 1947)."""
    from scipy.stats import rankdata

    honest, fooled = (np.asarray(one, dtype=np.float64) for one in (clean, attacked))
    ranks = rankdata(np.concatenate([honest, fooled]))[len(honest) :]
    pairs = len(honest) * len(fooled)
    return float((ranks.sum() - len(fooled) * (len(fooled) + 1) / 2) / pairs)


def auroc_interval(
    clean: ArrayLike,
    attacked: ArrayLike,
    clean_patients: Sequence[str],
    attacked_patients: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the AUROC with its bootstrap interval; whole patients are drawn, clean and attacked rows together.

    NaN limits for fewer than two patients, and where every draw gives the same (all attacked rows above all clean).
    """
    one = Scored(np.asarray(clean), np.asarray(attacked), tuple(clean_patients), tuple(attacked_patients))
    return auroc_over_trials([one], confidence=confidence, resamples=resamples, seed=seed)


@dataclass(frozen=True, slots=True)
class Scored:
    """One trial's scores of clean [n] and of attacked rows [m], each row with its patient."""

    clean: Real
    attacked: Real
    clean_patients: Sequence[str]
    attacked_patients: Sequence[str]


def auroc_over_trials(
    trials: Sequence[Scored], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean AUROC of trials with its bootstrap interval over patients, whom all trials share.

    Scores of two trials have no scale in common: rows are only ever compared with rows of their own trial. NaN limits
    as in `auroc_interval`. Raises ValueError where there is no trial, or one without clean or without attacked rows.
    """
    if not trials or not all(len(one.clean) and len(one.attacked) for one in trials):
        raise ValueError("an AUROC needs clean and attacked rows in every trial")
    estimates = [auroc(one.clean, one.attacked) for one in trials]
    estimate = float(np.mean(estimates))
    patients = [np.asarray(side) for one in trials for side in (one.clean_patients, one.attacked_patients)]
    names = np.unique(np.concatenate(patients))
    if len(names) < 2 or all(one in (0.0, 1.0) for one in estimates):
        reason = "fewer than two patients" if len(names) < 2 else "every attacked row is on one side of every clean one"
        return Interval(estimate, float("nan"), float("nan"), _BOOTSTRAP, reason)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = drawn.astype(np.float64)
    found = np.stack([_resampled(one, names, weights) for one in trials])
    known = found[:, np.isfinite(found).all(0)].mean(0)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2]) if known.size else (np.nan, np.nan)
    return Interval(estimate, float(low), float(high), _BOOTSTRAP)


def _resampled(one: Scored, names: NDArray[np.str_], weights: Real) -> Real:
    """Return the AUROC under each draw of patients, weights [draws, patients]; NaN where it holds no pair."""
    codes = [np.searchsorted(names, np.asarray(side)) for side in (one.clean_patients, one.attacked_patients)]
    above = _summed(_above(one.clean, one.attacked), codes[0], codes[1], len(names))
    sizes = [np.bincount(code, minlength=len(names)).astype(np.float64) for code in codes]
    pairs = (weights @ sizes[0]) * (weights @ sizes[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(((weights @ above) * weights).sum(1) / pairs, dtype=np.float64)


def _above(clean: Real, attacked: Real) -> Real:
    """Return float64[n, m]: 1 where the attacked row scores above the clean one, 0.5 where they are equal."""
    higher, equal = attacked[None] > clean[:, None], attacked[None] == clean[:, None]
    return np.asarray(higher + 0.5 * equal, dtype=np.float64)


def _summed(pairs: Real, rows: NDArray[np.int64], columns: NDArray[np.int64], size: int) -> Real:
    """Return float64[size, size], the pairs [n, m] summed over the patients of rows and columns."""
    by_row = np.zeros((size, pairs.shape[1]))
    np.add.at(by_row, rows, pairs)
    summed = np.zeros((size, size))
    np.add.at(summed.T, columns, by_row.T)
    return summed
