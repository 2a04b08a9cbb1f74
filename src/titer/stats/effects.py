"""Effect sizes and power. An effect whose yardstick (a standard deviation) is zero is NaN: undefined, not infinite."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from titer.stats.intervals import is_constant, student_quantile

_MOST_TRIALS = 1_000_000
# Hodges and Lehmann 1956: against any symmetric distribution the signed-rank test needs at most 1 / 0.864 of t's sample
_WILCOXON_EFFICIENCY = 0.864


def cohens_d_z(before: ArrayLike, after: ArrayLike) -> float:
    """Return d_z = mean(after - before) / SD(after - before) of paired values [n] (Cohen 1988, 2.3.5; Lakens 2013).

    It is the effect that the paired test sees; correlated pairs make it larger than `cohens_d_pooled`.
    NaN for fewer than two pairs or a constant difference.
    """
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if difference.size < 2 or is_constant(difference):
        return float("nan")
    return float(difference.mean() / difference.std(ddof=1))


def cohens_d_pooled(first: ArrayLike, second: ArrayLike) -> float:
    """Return d = (mean(second) - mean(first)) / pooled SD of two groups, [n1] and [n2] (Cohen 1988, 2.5).

    For two groups of one size the pooled SD is the root mean square of the SDs, so this is also the paired effect in
    units of the spread between trials. NaN for groups under two values or both constant.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(one.size, two.size) < 2 or (is_constant(one) and is_constant(two)):
        return float("nan")
    squares = (one.size - 1) * one.var(ddof=1) + (two.size - 1) * two.var(ddof=1)
    return float((two.mean() - one.mean()) / np.sqrt(squares / (one.size + two.size - 2)))


def eta_squared(groups: NDArray[np.float64]) -> float:
    """Return the share of the variance that lies between the groups [groups, n], in [0, 1]; NaN where there is none."""
    if groups.size == 0 or is_constant(groups.ravel()):
        return float("nan")
    total = ((groups - groups.mean()) ** 2).sum()
    between = groups.shape[1] * ((groups.mean(axis=1) - groups.mean()) ** 2).sum()
    return float(between / total)


def smallest_wilcoxon_p(n: int) -> float:
    """Return the smallest two-sided p that the exact signed-rank test can reach with `n` pairs: 2 / 2^n."""
    return float(min(1.0, 2.0 ** (1 - n)))


def paired_power(d_z: float, n: int, *, alpha: float = 0.05, wilcoxon: bool = False) -> float:
    """Return the power of the two-sided paired t test with `n` pairs at the true effect `d_z` (Cohen 1988, 2.3.5).

    At an observed effect this is a restatement of the p value, not evidence of its own (Hoenig and Heisey 2001).
    With `wilcoxon`, the figure is 0 where `n` is too small for any data to reach `alpha`, else t's with 86.4 % of the
    pairs. NaN for an undefined effect or fewer than two pairs.
    """
    if wilcoxon and smallest_wilcoxon_p(n) > alpha:
        return 0.0
    pairs = n * _WILCOXON_EFFICIENCY if wilcoxon else float(n)
    if np.isnan(d_z) or pairs < 2:
        return float("nan")
    return _t_power(d_z, pairs, alpha)


def _t_power(d_z: float, pairs: float, alpha: float) -> float:
    from scipy.stats import ncf
    from statsmodels.stats.power import TTestPower

    power = float(TTestPower().power(abs(d_z), pairs, alpha))
    if np.isnan(power):  # SciPy's noncentral t fails for a large effect and few pairs; t squared is the same test
        with np.errstate(all="ignore"):
            power = float(ncf.sf(student_quantile(pairs - 1, 1 - alpha) ** 2, 1, pairs - 1, d_z**2 * pairs))
    return min(power, 1.0)


def pairs_needed(d_z: float, *, power: float = 0.8, alpha: float = 0.05, wilcoxon: bool = False) -> int | None:
    """Return the smallest number of pairs (trials) whose power reaches `power` at the true effect `d_z`.

    None for an undefined effect, and where a million pairs would not do.
    """
    if np.isnan(d_z) or abs(d_z) < 1e-9:
        return None

    def enough(n: int) -> bool:
        return paired_power(d_z, n, alpha=alpha, wilcoxon=wilcoxon) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_TRIALS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def anova_power(eta: float, *, groups: int, n: int, alpha: float = 0.05) -> float:
    """Return the power of a one-way ANOVA of `groups` groups of `n` at the true eta squared `eta` (Cohen 1988, 8.3).

    NaN for an undefined effect or one that leaves no variance within the groups.
    """
    from statsmodels.stats.power import FTestAnovaPower

    if np.isnan(eta) or eta >= 1 - 1e-12 or groups < 2 or n < 2:
        return float("nan")
    effect = float(np.sqrt(eta / (1 - eta)))
    return min(1.0, float(FTestAnovaPower().power(effect, groups * n, alpha, k_groups=groups)))
