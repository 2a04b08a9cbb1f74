"""Shares that the statistics file does not hold, with their 95 % intervals: over trials, or over patients if wider."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from titer.report.numbers import NOTHING, Estimate

Real = NDArray[np.float64]
_Z = 1.959963984540054


def wilson(share: Real, n: float) -> tuple[Real, Real]:
    """Return Wilson's 95 % interval (1927, J. Am. Stat. Assoc. 22:209) of shares [...] of `n` independent rows."""
    square = _Z**2 / n
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * np.sqrt(np.maximum(0.0, share * (1 - share)) / n + square / (4 * n))
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


def bounds(shares: Real, n: float) -> tuple[Real, Real]:
    """Return the wider 95 % interval of the means of `shares` [trials, ...]: Student's t over trials, or Wilson's.

    `n` is the number of independent rows of ONE trial: trials share patients where the test part is fixed, so counting
    every trial's rows would flatter.
    """
    mean = shares.mean(axis=0)
    low, high = wilson(mean, n)
    trials = len(shares)
    if trials < 2:
        return low, high
    half = _student(trials - 1) * shares.std(axis=0, ddof=1) / math.sqrt(trials)
    wider = np.minimum(1.0, mean + half) - np.maximum(0.0, mean - half) > high - low
    return np.where(wider, np.maximum(0.0, mean - half), low), np.where(wider, np.minimum(1.0, mean + half), high)


def share(values: Real, n: float) -> Estimate:
    """Return the mean of one share per trial [trials] with its interval; `n` as in `bounds`, NaN trials left out."""
    known = values[np.isfinite(values)]
    if not known.size or not n > 0:
        return NOTHING
    low, high = map(float, bounds(known, n))
    mean, sd = float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else None
    patients = tuple(map(float, wilson(np.array(mean), n)))
    over = "patients" if (low, high) == patients else "trials"
    return Estimate(mean=mean, low=low, high=high, over=over, sd=sd, n_trials=int(known.size))


def complement(value: Estimate) -> Estimate:
    """Return what is left to 100 %: a miss rate for a sensitivity."""
    if value.mean is None:
        return value
    low = None if value.high is None else 1 - value.high
    high = None if value.low is None else 1 - value.low
    return Estimate(mean=1 - value.mean, low=low, high=high, over=value.over, sd=value.sd, n_trials=value.n_trials)


def _student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))
