import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multicomp import pairwise_tukeyhsd

from titer.stats.groups import PARAMETRIC, RANKS, compare_groups

# R: PlantGrowth (Dobson 1983)
PLANTS = {
    "ctrl": [4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14],
    "trt1": [4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69],
    "trt2": [6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26],
}
# Hollander and Wolfe 1973, p. 140: rounding first base; R's ?friedman.test: chi-squared = 11.143, df = 2, p = 0.003805
BASES = np.array([
    5.40, 5.50, 5.55, 5.85, 5.70, 5.75, 5.20, 5.60, 5.50, 5.55, 5.50, 5.40, 5.90, 5.85, 5.70, 5.45, 5.55, 5.60,
    5.40, 5.40, 5.35, 5.45, 5.50, 5.35, 5.25, 5.15, 5.00, 5.85, 5.80, 5.70, 5.25, 5.20, 5.10, 5.65, 5.55, 5.45,
    5.60, 5.35, 5.45, 5.05, 5.00, 4.95, 5.50, 5.50, 5.40, 5.45, 5.55, 5.50, 5.55, 5.55, 5.35, 5.45, 5.50, 5.55,
    5.50, 5.45, 5.25, 5.65, 5.60, 5.40, 5.70, 5.65, 5.55, 6.30, 6.30, 6.25,
]).reshape(22, 3)  # fmt: skip


def _pair(found, a, b):
    return next(each for each in found.pairs if {each.a, each.b} == {a, b})


def test_plant_growth_anova_and_tukey():
    found = compare_groups(PLANTS)
    assert (found.method, found.omnibus_test) == (PARAMETRIC, "one-way ANOVA")
    assert (found.statistic, found.p) == (pytest.approx(4.846, abs=5e-4), pytest.approx(0.01591, abs=5e-6))
    assert (found.df1, found.df2) == (2, 27)
    assert found.eta_squared == pytest.approx(3.76634 / (3.76634 + 10.49209), abs=1e-5)
    # R: TukeyHSD(aov(weight ~ group, PlantGrowth)) gives p adj and, for trt2-trt1, limits 0.1737839 to 1.5562161
    assert _pair(found, "trt1", "trt2").p_corrected == pytest.approx(0.0120064, abs=1e-6)
    assert _pair(found, "ctrl", "trt1").p_corrected == pytest.approx(0.3908711, abs=1e-6)
    assert _pair(found, "ctrl", "trt2").p_corrected == pytest.approx(0.1979960, abs=1e-6)
    pair = _pair(found, "trt1", "trt2")
    assert pair.mean_difference == pytest.approx(-0.865)
    assert (pair.ci_low, pair.ci_high) == (pytest.approx(-1.5562161, abs=1e-5), pytest.approx(-0.1737839, abs=1e-5))
    assert [each.significant for each in found.pairs] == [False, False, True]
    assert pair.cohens_d < 0


def test_tukey_agrees_with_statsmodels():
    theirs = pairwise_tukeyhsd(np.concatenate(list(PLANTS.values())), np.repeat(list(PLANTS), 10))
    ours = [each.p_corrected for each in compare_groups(PLANTS).pairs]
    np.testing.assert_allclose(ours, theirs.pvalues, atol=1e-4)


def test_rounding_first_base_friedman():
    found = compare_groups(dict(zip(["out", "narrow", "wide"], BASES.T, strict=True)))
    assert (found.method, found.omnibus_test) == (RANKS, "Friedman")
    assert (found.statistic, found.p) == (pytest.approx(11.143, abs=5e-4), pytest.approx(0.003805, abs=1e-6))
    assert found.kendalls_w == pytest.approx(11.142857 / 44, abs=1e-5)
    assert all(each.p_corrected >= each.p for each in found.pairs)
    raw = stats.wilcoxon(np.round(BASES[:, 0] - BASES[:, 2], 12)).pvalue
    assert _pair(found, "out", "wide").p == pytest.approx(raw, rel=0.05)


def test_a_collapsed_group_takes_ranks():
    # the undefended model at exactly 0 in every trial: no spread, so no ANOVA
    found = compare_groups(
        {"none": [0.0] * 5, "at": [0.50, 0.52, 0.49, 0.55, 0.51], "jpeg": [0.1, 0.2, 0.12, 0.14, 0.1]}
    )
    assert found.method == RANKS
    assert found.p == pytest.approx(stats.friedmanchisquare([0] * 5, [2] * 5, [1] * 5).pvalue)
    assert not any(each.significant for each in found.pairs)  # five pairs: p is at least 0.0625
    assert min(each.p for each in found.pairs) == 0.0625
    assert np.isnan(found.levene_p)


def test_two_defences_take_wilcoxon():
    found = compare_groups({"none": [0.0] * 6, "at": [0.50, 0.52, 0.49, 0.55, 0.51, 0.47]})
    assert found.omnibus_test == "Wilcoxon signed-rank"
    assert found.p == pytest.approx(2 / 2**6)
    assert found.pairs[0].significant


def test_unequal_spread_takes_ranks():
    rng = np.random.default_rng(0)
    found = compare_groups({"a": rng.normal(0, 0.001, 15), "b": rng.normal(0, 1, 15), "c": rng.normal(0, 0.1, 15)})
    assert found.levene_p < 0.05
    assert found.method == RANKS


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ({}, "fewer than two defences"),
        ({"a": [1, 2, 3]}, "fewer than two defences"),
        ({"a": [1, 2], "b": [2, 3]}, "fewer than three trials"),
        ({"a": [], "b": []}, "fewer than three trials"),
        ({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3]}, "every defence gave the same value in every trial"),
    ],
)
def test_not_applicable(samples, reason):
    found = compare_groups(samples)
    assert (found.method, found.reason, found.pairs) == ("not applicable", reason, ())
    assert np.isnan(found.p)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="samples has shapes"):
        compare_groups({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match="samples holds NaN"):
        compare_groups({"a": [1, 2, np.nan], "b": [1, 2, 3]})
