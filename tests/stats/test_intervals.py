import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from titer.stats import intervals as i


def test_t_interval_agrees_with_scipy():
    values = [0.81, 0.84, 0.79, 0.86, 0.83]
    found = i.over_trials(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.n, found.mean, found.sd) == (5, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_student_1908_sleep_interval():
    # R: t.test(extra ~ group, data = sleep, paired = TRUE): 95 percent confidence interval -2.4598858 -0.7001142
    difference = [-1.2, -2.4, -1.3, -1.3, 0.0, -1.0, -1.8, -0.8, -4.6, -1.4]
    found = i.over_trials(difference)
    assert (found.low, found.high) == (pytest.approx(-2.4598858, abs=1e-7), pytest.approx(-0.7001142, abs=1e-7))


def test_t_interval_is_clipped_to_the_bounds():
    found = i.over_trials([0.9, 1.0, 0.99], bounds=(0, 1))
    assert found.high == 1.0
    assert 0 < found.low < found.mean


@pytest.mark.parametrize("values", [[0.0] * 5, [0.9 - 0.4, 0.8 - 0.3, 0.5]])
def test_equal_trials_get_no_interval_of_zero_width(values):
    found = i.over_trials(values)
    assert found.sd == 0
    assert np.isnan([found.low, found.high]).all()
    assert "same value" in found.reason


def test_undefined_trials_are_left_out_and_counted():
    found = i.over_trials([0.5, np.nan, 0.7])
    assert (found.n, found.mean) == (2, pytest.approx(0.6))
    assert i.over_trials([np.nan, np.nan]).reason == "undefined in every trial"
    assert i.over_trials([]).n == 0
    one = i.over_trials([0.4])
    assert one.mean == 0.4
    assert np.isnan([one.sd, one.low]).all()


def test_clopper_pearson_published_example():
    # Newcombe 1998, Stat Med 17:857, table I: 81 of 263: exact 0.2527 to 0.3676, score 0.2553 to 0.3662
    exact, score = i.clopper_pearson(81, 263), i.wilson(81, 263)
    assert (exact.low, exact.high) == (pytest.approx(0.2527, abs=5e-5), pytest.approx(0.3676, abs=5e-5))
    assert (score.low, score.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_nothing_out_of_twenty_published_example():
    # Newcombe 1998, table I: 0 of 20: exact 0 to 0.1684, score 0 to 0.1611
    assert i.clopper_pearson(0, 20).high == pytest.approx(0.1684, abs=5e-5)
    assert i.wilson(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert i.clopper_pearson(0, 20).low == 0
    assert i.clopper_pearson(20, 20).high == 1


def test_binomial_interval_agrees_with_scipy():
    found = stats.binomtest(7, 30)
    exact, score = found.proportion_ci(method="exact"), found.proportion_ci(method="wilson")
    assert i.clopper_pearson(7, 30).low == pytest.approx(exact.low)
    assert i.wilson(7, 30).high == pytest.approx(score.high)


def test_no_observation_no_interval():
    found = i.clopper_pearson(0, 0)
    assert np.isnan([found.estimate, found.low, found.high]).all()
    assert found.reason == "no observation"


def test_bootstrap_of_single_rows_agrees_with_scipy():
    values = np.random.default_rng(1).random(80)
    found = i.cluster_bootstrap(values, np.arange(80), resamples=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == (pytest.approx(theirs.low, abs=0.006), pytest.approx(theirs.high, abs=0.006))


def test_copies_of_a_patients_row_add_no_certainty():
    values = (np.random.default_rng(3).random(60) < 0.6).astype(float)
    once = i.cluster_bootstrap(values, np.arange(60))
    copied = i.cluster_bootstrap(np.repeat(values, 5), np.repeat(np.arange(60), 5))
    assert (copied.low, copied.high) == (pytest.approx(once.low), pytest.approx(once.high))
    as_if_independent = i.cluster_bootstrap(np.repeat(values, 5), np.arange(300))
    assert copied.high - copied.low > 2 * (as_if_independent.high - as_if_independent.low)


def test_bootstrap_repeats_and_does_not_depend_on_the_other_columns():
    rng = np.random.default_rng(0)
    sums, counts = rng.integers(0, 3, (50, 3)).astype(float), np.full((50, 3), 2.0)
    together, alone = i.ratio_bootstrap(sums, counts, seed=7), i.ratio_bootstrap(sums[:, :1], counts[:, :1], seed=7)
    np.testing.assert_allclose(together[:1], alone)


def test_bootstrap_covers_a_clustered_proportion():
    # 200 simulated test sets of 60 patients with 4 images each, patients' rates ~ Beta(1.4, 0.6): true share 0.7
    rng = np.random.default_rng(11)
    rates = rng.beta(1.4, 0.6, (60, 200))
    sums, counts = rng.binomial(4, rates).astype(float), np.full((60, 200), 4.0)
    limits = i.ratio_bootstrap(sums, counts, resamples=1000)
    covered = np.mean((limits[:, 0] <= 0.7) & (limits[:, 1] >= 0.7))
    naive = np.array([i.wilson(total, 240).low <= 0.7 <= i.wilson(total, 240).high for total in sums.sum(axis=0)])
    assert 0.90 <= covered <= 0.99
    assert naive.mean() < 0.85  # what treating images as independent would do


def test_patient_interval_covers_a_rare_failure():
    # true share 0.02 in 60 patients of 2 images: the bootstrap alone often has no failure to draw
    rng = np.random.default_rng(12)
    sums, counts = 2.0 * rng.binomial(1, 0.02, (60, 200)), np.full((60, 200), 2.0)
    found = i.patient_intervals(sums, counts, resamples=200)
    assert {each.method for each in found} == {i.EXACT}
    assert np.mean([each.low <= 0.02 <= each.high for each in found]) >= 0.95


def test_all_right_is_not_certain():
    found = i.patient_intervals(np.full((50, 1), 2.0), np.full((50, 1), 2.0))[0]
    assert (found.estimate, found.high, found.method) == (1.0, 1.0, i.EXACT)
    assert found.low == pytest.approx(0.025 ** (1 / 50))


def test_nothing_counted_has_no_interval():
    found = i.patient_intervals(np.zeros((4, 1)), np.zeros((4, 1)))[0]
    assert np.isnan([found.estimate, found.low, found.high]).all()


def test_degenerate_bootstraps():
    assert "fewer than two" in i.cluster_bootstrap([0.1, 0.9], ["a", "a"]).reason
    assert "equal" in i.cluster_bootstrap([1, 1, 1], ["a", "b", "c"]).reason
    assert np.isnan(i.cluster_bootstrap([], []).estimate)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: i.over_trials([1, 2], confidence=1), "confidence = 1"),
        (lambda: i.over_trials([[1, 2]]), "values has shape"),
        (lambda: i.wilson(5, 4), "successes = 5: allowed is 0 to n = 4"),
        (lambda: i.cluster_bootstrap([1, 2], ["a"]), "clusters has shape"),
        (lambda: i.cluster_bootstrap([1, np.nan], ["a", "b"]), "values holds NaN"),
        (lambda: i.cluster_bootstrap([1, 2], ["a", "b"], resamples=0), "resamples = 0"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=10))
def test_t_interval_contains_the_mean(values):
    found = i.over_trials(values, bounds=(0, 1))
    assert np.isnan(found.low) or found.low <= found.mean <= found.high


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.floats(0, 1))
def test_binomial_intervals_contain_the_share_and_exact_is_no_narrower_where_extreme(n, share):
    successes = int(share * n)
    for found in (i.wilson(successes, n), i.clopper_pearson(successes, n)):
        assert 0 <= found.low <= found.estimate <= found.high <= 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(20, 60))
def test_patient_intervals_contain_the_share(seed, patients):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, (patients, 2)).astype(float)
    sums = rng.binomial(counts.astype(int), 0.5).astype(float)
    for found in i.patient_intervals(sums, counts, resamples=200):
        assert found.low <= found.estimate <= found.high
