"""McNemar's test of two verdicts on the same samples, with patients as the independent unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_BELOW = 25


@dataclass(frozen=True, slots=True)
class McNemar:
    """Result on `n` samples: `lost` were right before and wrong after, `gained` the other way round."""

    test: str
    n: int
    lost: int
    gained: int
    statistic: float
    p: float


def mcnemar(before: ArrayLike, after: ArrayLike, clusters: ArrayLike | None = None) -> McNemar:
    """Test whether as many samples turn wrong as turn right: boolean verdicts `before` and `after`, [n].

    With one sample a patient (or no `clusters`): McNemar 1947, without continuity correction (Fagerland et al. 2013
    find the corrected one needlessly blunt); exact binomial below 25 discordant samples. With several samples of
    a patient their verdicts are not independent, and McNemar's p is too small. Then the unit is the patient's
    lost - gained: the modified Obuchowski test (Yang, Sun and Hardin 2010), (sum d)^2 / sum d^2 against chi-squared
    with one degree of freedom, below 25 discordant patients its exact sign-flip distribution. With one sample
    a patient both are McNemar's test. p = 1 with nothing discordant; NaN without samples.
    Raises ValueError for lengths that differ.
    """
    one, two = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(f"after has shape {two.shape}: allowed is that of before, {one.shape}")
    lost, gained = int((one & ~two).sum()), int((~one & two).sum())
    if one.size == 0:
        return McNemar("not applicable", 0, 0, 0, float("nan"), float("nan"))
    if clusters is None:
        return _independent(one.size, lost, gained)
    patients, code = np.unique(np.asarray(clusters), return_inverse=True)
    if code.shape != one.shape:
        raise ValueError(f"clusters has shape {code.shape}: allowed is that of before, {one.shape}")
    if patients.size == one.size:
        return _independent(one.size, lost, gained)
    change = np.bincount(code, weights=one.astype(np.float64) - two).round().astype(np.int64)
    return _clustered(one.size, lost, gained, change[change != 0])


def _independent(n: int, lost: int, gained: int) -> McNemar:
    from statsmodels.stats.contingency_tables import mcnemar as by_statsmodels

    exact = lost + gained < EXACT_BELOW
    found = by_statsmodels([[0, lost], [gained, 0]], exact=exact, correction=False)
    name = "McNemar exact" if exact else "McNemar chi-squared"
    return McNemar(name, n, lost, gained, float(found.statistic), min(1.0, float(found.pvalue)))


def _clustered(n: int, lost: int, gained: int, change: NDArray[np.int64]) -> McNemar:
    if change.size < EXACT_BELOW:
        p = _sign_flip(np.abs(change), abs(int(change.sum())))
        return McNemar("clustered McNemar exact (sign flips of patients)", n, lost, gained, float(change.sum()), p)
    from scipy.stats import chi2

    statistic = float(change.sum()) ** 2 / float((change**2).sum())
    name = "clustered McNemar chi-squared (modified Obuchowski)"
    return McNemar(name, n, lost, gained, statistic, float(chi2.sf(statistic, 1)))


def _sign_flip(sizes: NDArray[np.int64], observed: int) -> float:
    """Return P(|sum of +-sizes| >= observed) over all sign patterns, by convolving one patient after another."""
    total = int(sizes.sum())
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    far = np.abs(np.arange(-total, total + 1)) >= observed
    return min(1.0, float(chances[far].sum()))
