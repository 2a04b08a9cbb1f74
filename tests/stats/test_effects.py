import numpy as np
import pytest
from statsmodels.stats.power import FTestAnovaPower, TTestPower

from titer.stats import effects as e

SLEEP = ([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def test_sleep_effects():
    # Student 1908: mean difference 1.58, paired t = 4.0621277 (d_z = t / sqrt(n)), group SDs 1.789 and 2.002
    assert e.cohens_d_z(*SLEEP) == pytest.approx(4.0621277 / np.sqrt(10), abs=1e-6)
    assert e.cohens_d_pooled(*SLEEP) == pytest.approx(1.58 / np.sqrt((1.789010**2 + 2.002249**2) / 2), abs=1e-5)


def test_effects_without_spread_are_undefined_not_infinite():
    assert np.isnan(e.cohens_d_z([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]))
    assert np.isnan(e.cohens_d_pooled([1, 1, 1], [0, 0, 0]))
    assert np.isnan(e.cohens_d_z([1], [0]))
    assert np.isnan(e.eta_squared(np.ones((3, 4))))
    assert np.isnan(e.anova_power(1.0, groups=3, n=5))
    assert e.pairs_needed(float("nan")) is None
    assert e.pairs_needed(0.0) is None


def test_power_of_cohens_table():
    # Cohen 1988, table 2.4.1: two-sided 0.05, power 0.80, paired d_z = 0.5: 34 pairs (33.4 by the exact distribution)
    assert e.pairs_needed(0.5) == 34
    assert e.paired_power(0.5, 34) == pytest.approx(0.808, abs=0.001)
    # two-sided one-sample t, d = 0.8: 15 pairs; d = 0.2: 199 (G*Power 3.1)
    assert e.pairs_needed(0.8) == 15
    assert e.pairs_needed(0.2) == 199


def test_anova_power_of_cohens_table():
    # Cohen 1988, table 8.3.13 (u = 2, alpha 0.05): f = 0.25 needs n = 52 per group for power 0.80
    eta = 0.25**2 / (1 + 0.25**2)
    assert e.anova_power(eta, groups=3, n=53) >= 0.80
    assert e.anova_power(eta, groups=3, n=51) < 0.80
    assert e.anova_power(eta, groups=3, n=20) == pytest.approx(FTestAnovaPower().power(0.25, 60, 0.05, k_groups=3))


def test_power_agrees_with_statsmodels_and_survives_its_gaps():
    assert e.paired_power(-0.7, 12) == pytest.approx(TTestPower().power(0.7, 12, 0.05))
    assert np.isnan(TTestPower().power(20, 5, 0.05))  # the gap that the fallback fills
    assert e.paired_power(20, 5) == pytest.approx(1.0)
    for d in (1, 3, 6, 10, 20, 50, 300):
        assert 0 <= e.paired_power(d, 2) <= 1
    growing = [e.paired_power(d, 2) for d in (1, 3, 6, 10, 15, 20, 40)]
    assert growing == sorted(growing)


def test_wilcoxon_cannot_reject_with_five_pairs():
    assert e.smallest_wilcoxon_p(5) == 0.0625
    assert e.smallest_wilcoxon_p(6) == 0.03125
    assert e.paired_power(50.0, 5, wilcoxon=True) == 0.0
    assert e.pairs_needed(50.0, wilcoxon=True) == 6
    assert e.pairs_needed(0.5, wilcoxon=True) == 39  # 33.4 / 0.864, rounded up
    assert e.pairs_needed(1e-4, wilcoxon=True) is None
