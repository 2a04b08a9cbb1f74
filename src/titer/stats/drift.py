"""Two samples of one population, or of two? Kolmogorov-Smirnov by dimension, and the maximum mean discrepancy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
_VALUES_AT_ONCE = 2_000_000


class TwoSample(NamedTuple):
    """A test of two samples: how far they are apart, and the chance of that in one population."""

    statistic: float
    p_value: float


def kolmogorov_smirnov(reference: Real, batch: Real) -> TwoSample:
    """Return the largest KS distance over D dimensions of [n, D] and [m, D], its p-value times D (Bonferroni).

    As Rabanser, Günnemann, Lipton 2019, arXiv:1810.11953, section 3.2, test many dimensions.
    """
    from scipy.stats import ks_2samp

    found = [ks_2samp(reference[:, d], batch[:, d], method="auto") for d in range(reference.shape[1])]
    least = min(float(one.pvalue) for one in found)
    return TwoSample(max(float(one.statistic) for one in found), min(1.0, least * len(found)))


def maximum_mean_discrepancy(reference: Real, batch: Real, *, permutations: int, seed: int) -> TwoSample:
    """Return the biased squared MMD of [n, D] and [m, D] and its permutation p-value, at least 1 / (permutations + 1).

    The kernel is Gaussian, its width the median distance of all rows (Gretton et al. 2012, JMLR 13, eq. 5 and section
    8; the p-value counts the sample itself, Phipson and Smyth 2010).
    """
    kernel = _gaussian(np.concatenate([reference, batch]))
    n, m = len(reference), len(batch)
    signs = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    own = float(signs @ kernel @ signs)
    rng, above, left = np.random.default_rng(seed), 0, permutations
    while left > 0:
        size = min(left, max(1, _VALUES_AT_ONCE // len(signs)))
        shuffled = rng.permuted(np.tile(signs, (size, 1)), axis=1)
        above += int((((shuffled @ kernel) * shuffled).sum(1) >= own - 1e-12).sum())
        left -= size
    return TwoSample(own, (above + 1) / (permutations + 1))


def _gaussian(rows: Real) -> Real:
    from scipy.spatial.distance import pdist, squareform

    squared = pdist(rows, "sqeuclidean")
    positive = squared[squared > 0]
    width = float(np.median(positive)) if positive.size else 1.0
    return np.asarray(np.exp(-squareform(squared) / width), dtype=np.float64)
