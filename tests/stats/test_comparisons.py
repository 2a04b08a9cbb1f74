import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from titer.stats import comparisons as c

SLEEP = ([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
DEPRESSION = (
    [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30],
    [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29],
)


def test_students_sleep_data():
    # R, paired t.test of sleep (Student 1908): t = -4.0621, df = 9, p = 0.002833; shapiro.test: p = 0.033
    found = stats.ttest_rel(*SLEEP)
    assert found.statistic == pytest.approx(-4.0621, abs=1e-4)
    compared = c.paired(*SLEEP)
    # one patient gained 4.6 h: the differences are not normal, so the protocol takes ranks (one zero dropped)
    assert compared.normality.normal is False
    assert compared.normality.p == pytest.approx(0.0334, abs=2e-4)
    assert compared.test == c.WILCOXON
    assert compared.statistic == 0
    assert compared.p == pytest.approx(2 / 2**9)
    assert "not established" in compared.ci_method
    strict = c.paired(*SLEEP, alpha=0.01)
    assert strict.test == c.PAIRED_T
    assert strict.statistic == pytest.approx(4.0621, abs=1e-4)
    assert strict.p == pytest.approx(0.002833, abs=1e-6)


def test_hollander_and_wolfe_depression_data():
    # Hollander and Wolfe 1973, p. 29; R's ?wilcox.test: V = 40, p = 0.01953 one-sided, 0.03906 two-sided
    statistic, p = c.wilcoxon(np.subtract(*DEPRESSION))
    assert 9 * 10 / 2 - statistic == 40
    assert p == pytest.approx(0.0390625)


def test_normal_differences_take_the_t_test():
    before, after = [0.90, 0.88, 0.91, 0.87, 0.89], [0.40, 0.43, 0.38, 0.37, 0.45]
    found, theirs = c.paired(before, after), stats.ttest_rel(after, before)
    assert found.test == c.PAIRED_T
    assert (found.statistic, found.p) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))
    limits = theirs.confidence_interval()
    assert (found.ci_low, found.ci_high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert found.mean_difference == pytest.approx(np.mean(after) - np.mean(before))
    assert found.normality.p == pytest.approx(stats.shapiro(np.subtract(after, before)).pvalue)


def test_five_pairs_cannot_reach_significance_by_ranks():
    found = c.paired([0.9] * 5, [0.1, 0.1, 0.1, 0.1, 0.3])
    assert found.test == c.WILCOXON
    assert found.p == 0.0625
    assert found.power == 0.0


def test_a_constant_drop_is_no_proof_by_t():
    # 0.9 - 0.4 and 0.8 - 0.3 differ in the last bit: t would be 1e15
    found = c.paired([0.9, 0.8, 0.7, 0.6, 0.5], [0.4, 0.3, 0.2, 0.1, 0.0])
    assert found.test == c.WILCOXON
    assert found.p == 0.0625
    assert np.isnan([found.ci_low, found.ci_high, found.d_z]).all()
    assert "same value" in found.reason
    assert found.ci_method == c.NOT_APPLICABLE


def test_no_difference_is_not_tested():
    found = c.paired([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])
    assert (found.test, found.mean_difference, found.reason) == (c.NOT_APPLICABLE, 0, "no difference in any trial")
    assert np.isnan([found.p, found.statistic, found.d_z, found.power]).all()
    assert found.n_needed is None


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_pairs(n):
    found = c.paired([0.9] * n, [0.5] * n)
    assert (found.n, found.test) == (n, c.NOT_APPLICABLE)
    assert "fewer than two" in found.reason


def test_two_pairs_take_ranks_as_normality_cannot_be_judged():
    found = c.paired([0.9, 0.8], [0.5, 0.45])
    assert (found.test, found.p, found.normality.normal) == (c.WILCOXON, 0.5, None)


def test_undefined_trials_are_left_out():
    assert c.paired([0.9, np.nan, 0.8, 0.7], [0.5, 0.4, 0.45, 0.3]).n == 3


def test_normality_is_not_judged_without_spread():
    assert c.normality([1, 1, 1, 1]).normal is None
    assert c.normality([1, 2]).normal is None
    assert c.normality([1, 2, np.nan]).normal is None


def test_holm_published_example():
    # Holm's procedure, worked: p = .01 .04 .03 .005 -> .03 .06 .06 .02 (R: p.adjust(c(.01, .04, .03, .005), "holm"))
    np.testing.assert_allclose(c.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_tests_not_done_do_not_count_in_the_family():
    np.testing.assert_allclose(c.holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert np.isnan(c.holm([np.nan, np.nan])).all()
    assert c.holm([]).size == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: c.paired([1, 2], [1]), "after has shape"),
        (lambda: c.paired([1, 2], [1, 3], alpha=0), "alpha = 0"),
        (lambda: c.holm([0.5, 1.5]), "p_values holds 0.5 to 1.5"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


values = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (pair[0] / 60, pair[1] / 60)),
    min_size=2, max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(values, st.randoms())
def test_any_accuracies_can_be_compared_in_any_order(pairs, random):
    found = c.paired(*zip(*pairs, strict=True))
    shuffled = random.sample(pairs, len(pairs))
    again = c.paired(*zip(*shuffled, strict=True))
    assert again.p == pytest.approx(found.p, nan_ok=True)
    assert np.isnan(found.p) or 0 <= found.p <= 1
    assert np.isnan(found.ci_low) or found.ci_low <= found.mean_difference <= found.ci_high
    backwards = c.paired(*zip(*[(b, a) for a, b in pairs], strict=True))
    assert backwards.p == pytest.approx(found.p, nan_ok=True)
    assert backwards.mean_difference == pytest.approx(-found.mean_difference)
