"""Thresholds hold their false-positive rate, AUROC is scikit-learn's, intervals cover, and too little data says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from titer.core.errors import Incompatible, SpecError
from titer.stats.alarms import Scored, alerts, auroc, auroc_interval, auroc_over_trials, detection, thresholds


def _draw(rng, rows, detectors):
    """Scores that agree in part, of different shapes, one of them in coarse steps."""
    common = rng.normal(size=(rows, 1))
    scores = common + rng.normal(size=(rows, detectors))
    scores[:, -1] = np.exp(scores[:, -1]).round(1)
    return scores


@pytest.mark.parametrize("detectors", [1, 2, 6])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_fresh_clean_rows_raise_no_more_alarms_than_stated(detectors, rate):
    """Over many calibrations: the count is below the 99.99 % quantile of the binomial at the stated rate."""
    rng, raised, looked = np.random.default_rng(0), 0, 0
    for _ in range(400):
        limits = thresholds(_draw(rng, 700, detectors), rate)
        fresh = _draw(rng, 20, detectors)
        raised, looked = raised + int((fresh > limits).any(1).sum()), looked + len(fresh)
    assert raised <= binom.ppf(0.9999, looked, rate)
    if detectors > 1:
        assert raised >= 0.5 * rate * looked, "a rate that is far from used up detects less than it could"


def test_one_alarm_has_the_conformal_quantile():
    scores = np.arange(99.0)
    assert thresholds(scores, 0.05) == [94.0]
    assert float((scores > 94.0).sum() + 1) / 100 <= 0.05


def test_several_alarms_are_given_at_least_what_bonferroni_gives():
    scores = np.random.default_rng(0).normal(size=(599, 4))
    together, alone = thresholds(scores, 0.05), thresholds(scores[:, 0], 0.05 / 4)
    assert together[0] <= alone[0]


def test_equal_scores_raise_no_alarm():
    limits = thresholds(np.zeros(100), 0.05)
    assert not (np.zeros(50) > limits).any()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5])
def test_a_rate_out_of_its_limits_is_named(rate):
    with pytest.raises(SpecError, match="false-positive rate"):
        thresholds(np.zeros(100), rate)


def test_too_few_rows_say_how_many_are_needed():
    with pytest.raises(Incompatible, match=r"50 clean rows are few for 1 detectors at .* 0.01; 99 suffice"):
        thresholds(np.zeros(50), 0.01)
    thresholds(np.zeros(99), 0.01)
    with pytest.raises(Incompatible, match="no finite numbers"):
        thresholds(np.full(99, np.nan), 0.05)


numbers = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(numbers, numbers)
def test_auroc_is_scikit_learns(clean, attacked):
    expected = roc_auc_score([0] * len(clean) + [1] * len(attacked), clean + attacked)
    assert auroc(clean, attacked) == pytest.approx(expected)


def test_auroc_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    truth = 0.7602  # of normals one standard deviation apart: the normal distribution at 1 / sqrt 2
    names = [f"p{i}" for i in range(60)]
    for seed in range(100):
        clean, attacked = rng.normal(size=60), rng.normal(size=60) + 1
        found = auroc_interval(clean, attacked, names, names, seed=seed, resamples=300)
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 100


def test_auroc_interval_without_variation_has_a_reason():
    found = auroc_interval(np.zeros(3), np.ones(3), ["a", "b", "c"], ["a", "b", "c"])
    assert found.estimate == 1.0
    assert np.isnan(found.low)
    assert found.reason


def test_detection_reports_rates_intervals_and_alerts():
    rng = np.random.default_rng(1)
    names = [f"p{i}" for i in range(500)]
    found = detection(
        rng.normal(size=500), rng.normal(size=500), rng.normal(size=500) + 3, clean_patients=names,
        attacked_patients=names,
    )  # fmt: skip
    assert set(found.tpr) == {0.01, 0.05}
    assert found.tpr[0.05].low < 0.91 < found.tpr[0.05].high  # 1 - Phi(1.645 - 3) = 0.912
    assert found.fpr[0.05].low <= found.fpr[0.05].estimate < 0.09
    assert found.alerts[0.05] == pytest.approx(1000 * found.fpr[0.05].estimate)
    assert found.auroc.low < 0.983 < found.auroc.high
    few = detection(np.zeros(50), [0.0], [1.0], clean_patients=["a"], attacked_patients=["a"])
    assert set(few.tpr) == {0.05}
    with pytest.raises(Incompatible, match="clean and attacked rows"):
        detection(np.zeros(50), [], [1.0], clean_patients=[], attacked_patients=["a"])


def test_alerts_count_attacks_where_there_are_some():
    assert alerts(0.05) == 50
    assert alerts(0.05, 0.9, prevalence=0.1) == pytest.approx(900 * 0.05 + 100 * 0.9)
    with pytest.raises(SpecError, match="prevalence"):
        alerts(0.05, prevalence=2)


def test_auroc_over_trials_compares_rows_of_one_trial_only():
    """Two trials whose scores differ by a constant have the mean of their own AUROCs, and a narrower interval."""
    rng = np.random.default_rng(0)
    names = [f"p{row}" for row in range(60)]
    trials = []
    for offset in (0.0, 50.0):
        clean, attacked = offset + rng.normal(size=60), offset + 0.8 + rng.normal(size=60)
        trials.append(Scored(clean, attacked, names, names))
    both = auroc_over_trials(trials)
    assert both.estimate == pytest.approx(np.mean([auroc(one.clean, one.attacked) for one in trials]))
    alone = auroc_interval(trials[0].clean, trials[0].attacked, names, names)
    assert both.high - both.low < alone.high - alone.low
    assert auroc_over_trials(trials[:1]) == alone
    with pytest.raises(ValueError, match="clean and attacked rows"):
        auroc_over_trials([])
