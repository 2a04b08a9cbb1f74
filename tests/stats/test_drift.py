"""Two-sample tests: p-values that are fair under no drift, and small under one."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from titer.stats.drift import kolmogorov_smirnov, maximum_mean_discrepancy


def test_one_dimension_is_scipys_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 1)), rng.normal(size=(40, 1))
    own, theirs = kolmogorov_smirnov(a, b), ks_2samp(a[:, 0], b[:, 0])
    assert own == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))
    doubled = kolmogorov_smirnov(np.tile(a, 2), np.tile(b, 2))
    assert doubled.p_value == pytest.approx(min(1.0, 2 * theirs.pvalue))


def _p(seed, moved):
    rng = np.random.default_rng(seed)
    return maximum_mean_discrepancy(
        rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) + moved, permutations=99, seed=seed
    ).p_value


def test_mmd_is_fair_and_finds_a_shift():
    clean = np.array([_p(seed, 0.0) for seed in range(200)])
    assert (clean <= 0.05).sum() <= 20  # 99.9 % of the binomial of 200 at 5 %
    assert 0.4 < clean.mean() < 0.6
    assert max(_p(seed, 1.5) for seed in range(5)) == pytest.approx(0.01)


def test_rows_without_any_spread_do_not_break_it():
    assert maximum_mean_discrepancy(np.zeros((5, 2)), np.zeros((5, 2)), permutations=19, seed=0).p_value == 1.0
