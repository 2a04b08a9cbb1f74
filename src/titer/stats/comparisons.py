"""Paired comparisons over trials: normality, then Student's t or Wilcoxon's signed ranks; Holm's correction.

Five trials are few. With five pairs the smallest two-sided p of Wilcoxon's test is 2 / 2^5 = 0.0625, so at 0.05 it
cannot reject whatever the data, and Shapiro-Wilk finds only gross departures. Therefore the per-sample McNemar test
(`titer.stats.mcnemar`) and the bootstrap over patients (`titer.stats.intervals`) stand beside these tests. Trials
over a fixed test set are retrainings judged on the same patients: not independent replications of the population.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from titer.stats import effects
from titer.stats.intervals import is_constant, over_trials

PAIRED_T = "paired t-test"
WILCOXON = "Wilcoxon signed-rank"
NOT_APPLICABLE = "not applicable"
# differences that agree to 12 decimals are ties, and zeros are zeros: what remains is rounding error of the subtraction
_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Normality:
    """Shapiro-Wilk's W and p; `normal` is None with a `reason` where the test cannot be done."""

    statistic: float
    p: float
    normal: bool | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """A paired comparison; differences are after - before in the values' unit, d_z and d_pooled name the yardstick."""

    n: int
    mean_before: float
    mean_after: float
    mean_difference: float
    ci_low: float
    ci_high: float
    ci_method: str
    normality: Normality
    test: str
    statistic: float
    p: float
    d_z: float
    d_pooled: float
    power: float
    n_needed: int | None
    reason: str | None


def normality(values: ArrayLike, *, alpha: float = 0.05) -> Normality:
    """Test `values` [n] for a normal distribution (Shapiro and Wilk 1965); not done below 3 values or for constants."""
    from scipy.stats import shapiro

    array = np.asarray(values, dtype=np.float64)
    if array.size < 3 or np.isnan(array).any():
        return Normality(float("nan"), float("nan"), None, "Shapiro-Wilk needs at least 3 values, none undefined")
    if is_constant(array):
        return Normality(float("nan"), float("nan"), None, "all values are equal")
    found = shapiro(array)
    return Normality(float(found.statistic), float(found.pvalue), bool(found.pvalue >= alpha))


def paired(before: ArrayLike, after: ArrayLike, *, alpha: float = 0.05) -> PairedComparison:
    """Compare paired values [n] with one test, chosen by the Shapiro-Wilk test of the differences at `alpha`.

    Student's paired t where normality stands; Wilcoxon's signed-rank test (exact for up to 50 pairs without ties or
    13 with; zero differences are dropped, Wilcoxon 1945) where it fails or cannot be judged. The interval is the
    t interval of the mean difference at 1 - alpha either way; `ci_method` says where its assumption is in doubt.
    Pairs with a NaN are left out. Not applicable for fewer than two pairs or where every difference is zero.
    Raises ValueError for lengths that differ or alpha outside (0, 1).
    """
    one, two = _pairs(before, after, alpha)
    difference = np.round(two - one, _DECIMALS)
    shape = normality(difference, alpha=alpha)
    summary = over_trials(two - one, confidence=1 - alpha)
    test, statistic, p, reason = _test(one, two, difference, shape)
    d_z, ranks = effects.cohens_d_z(one, two), test == WILCOXON
    doubt = "" if shape.normal else "; normality of the differences is not established"
    return PairedComparison(
        n=one.size,
        mean_before=float(one.mean()) if one.size else float("nan"),
        mean_after=float(two.mean()) if one.size else float("nan"),
        mean_difference=summary.mean,
        ci_low=summary.low,
        ci_high=summary.high,
        ci_method=f"t interval of the mean difference{doubt}" if summary.reason is None else NOT_APPLICABLE,
        normality=shape,
        test=test,
        statistic=statistic,
        p=p,
        d_z=d_z,
        d_pooled=effects.cohens_d_pooled(one, two),
        power=effects.paired_power(d_z, one.size, alpha=alpha, wilcoxon=ranks),
        n_needed=effects.pairs_needed(d_z, alpha=alpha, wilcoxon=ranks),
        reason=reason or summary.reason,
    )


def wilcoxon(difference: ArrayLike) -> tuple[float, float]:
    """Return the two-sided signed-rank statistic (the smaller rank sum) and p of paired differences [n].

    Wilcoxon 1945; Hollander and Wolfe 1999, 3.1. NaN where all differences are zero.
    """
    from scipy import stats

    array = np.round(np.asarray(difference, dtype=np.float64), _DECIMALS)
    if not array.any():
        return float("nan"), float("nan")
    found = stats.wilcoxon(array[array != 0])
    return float(found.statistic), float(found.pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's adjusted p values of one family [n] (Holm 1979); a NaN is a test not done and is not counted."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values holds {np.nanmin(p)} to {np.nanmax(p)}: allowed is 0 to 1")
    adjusted = np.full(p.shape, np.nan)
    done = ~np.isnan(p)
    if done.any():
        adjusted[done] = multipletests(p[done], method="holm")[1]
    return adjusted


def _test(
    one: NDArray[np.float64], two: NDArray[np.float64], difference: NDArray[np.float64], shape: Normality
) -> tuple[str, float, float, str | None]:
    from scipy import stats

    if difference.size < 2:
        return NOT_APPLICABLE, float("nan"), float("nan"), "fewer than two trials: nothing to pair"
    if not difference.any():
        return NOT_APPLICABLE, float("nan"), float("nan"), "no difference in any trial"
    if shape.normal:
        found = stats.ttest_rel(two, one)
        return PAIRED_T, float(found.statistic), float(found.pvalue), None
    statistic, p = wilcoxon(difference)
    return WILCOXON, statistic, p, None


def _pairs(before: ArrayLike, after: ArrayLike, alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, two = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(f"after has shape {two.shape}: allowed is that of before, {one.shape}, one value per trial")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: allowed is more than 0 and less than 1")
    known = ~(np.isnan(one) | np.isnan(two))
    return one[known], two[known]
