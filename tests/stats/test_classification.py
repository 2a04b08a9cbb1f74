import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from titer.stats import classification as c


def _case(seed, classes, n=200):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    scores = np.round(rng.dirichlet(np.ones(classes), n), 2) + 1e-9  # rounding makes ties
    return labels, scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_binary_rates_agree_with_scikit_learn(seed):
    labels, probabilities = _case(seed, 2)
    predictions = probabilities.argmax(axis=1)
    kind = {"classes": 2, "positive": 1}
    assert c.accuracy(labels, predictions) == pytest.approx(sk.accuracy_score(labels, predictions))
    assert c.balanced_accuracy(labels, predictions, classes=2) == pytest.approx(
        sk.balanced_accuracy_score(labels, predictions)
    )
    assert c.sensitivity(labels, predictions, **kind) == pytest.approx(sk.recall_score(labels, predictions))
    assert c.specificity(labels, predictions, **kind) == pytest.approx(
        sk.recall_score(labels, predictions, pos_label=0)
    )
    assert c.fnr(labels, predictions, **kind) == pytest.approx(1 - sk.recall_score(labels, predictions))
    assert c.fpr(labels, predictions, **kind) == pytest.approx(1 - sk.recall_score(labels, predictions, pos_label=0))
    assert c.auroc(labels, probabilities, positive=1) == pytest.approx(sk.roc_auc_score(labels, probabilities[:, 1]))
    assert c.auroc(labels, probabilities, positive=0) == pytest.approx(
        sk.roc_auc_score(1 - labels, probabilities[:, 0])
    )


def test_many_classes_are_macro_averages_one_against_the_rest():
    labels, probabilities = _case(5, 4)
    predictions = probabilities.argmax(axis=1)
    assert c.auroc(labels, probabilities) == pytest.approx(
        sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert c.sensitivity(labels, predictions, classes=4) == pytest.approx(
        sk.recall_score(labels, predictions, average="macro")
    )
    rest = np.mean([sk.recall_score(labels == k, predictions == k, pos_label=0) for k in range(4)])
    assert c.specificity(labels, predictions, classes=4) == pytest.approx(rest)


def test_expected_calibration_error_by_hand():
    # confidences .9 .9 .6 .6; right, wrong, right, right: bins (.8667,.9333] gap |.5-.9|, (.5333,.6] gap |1-.6|
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert c.ece([0, 1, 0, 1], [0, 0, 0, 1], probabilities) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


def test_confidence_is_that_of_the_predicted_class():
    assert c.ece([1], [1], [[0.8, 0.2]]) == pytest.approx(0.8)


def test_bins_are_closed_on_the_right():
    # 0.5 belongs to (0, .5] and 0.6 to (.5, 1] with two bins: gaps .5 and .4 do not cancel within one bin
    assert c.ece([1, 0], [0, 0], [[0.5, 0.5], [0.6, 0.4]], bins=2) == pytest.approx((0.5 + 0.4) / 2)


def test_absent_class_is_undefined():
    predictions, probabilities = np.array([1, 0, 1]), np.array([[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    only_ill = np.array([1, 1, 1])
    assert c.sensitivity(only_ill, predictions, classes=2, positive=1) == pytest.approx(2 / 3)
    for value in (
        c.specificity(only_ill, predictions, classes=2, positive=1),
        c.fpr(only_ill, predictions, classes=2, positive=1),
        c.balanced_accuracy(only_ill, predictions, classes=2),
        c.auroc(only_ill, probabilities, positive=1),
        c.sensitivity(only_ill, predictions, classes=3),
    ):
        assert np.isnan(value)


def test_nothing_gives_nan():
    empty, none = np.array([], dtype=int), np.empty((0, 2))
    assert np.isnan(c.accuracy(empty, empty))
    assert np.isnan(c.auroc(empty, none, positive=1))
    assert np.isnan(c.ece(empty, empty, none))


def test_unknown_probabilities_leave_area_and_calibration_undefined():
    probabilities = np.array([[0.3, 0.7], [np.nan, np.nan]])
    assert np.isnan(c.auroc([1, 0], probabilities, positive=1))
    assert np.isnan(c.ece([1, 0], [1, 0], probabilities))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: c.confusion([0, 2], [0, 1], classes=2), "labels holds 0 to 2: allowed are classes 0 to 1"),
        (lambda: c.confusion([0, 1], [0, -1], classes=2), "predictions holds -1 to 0"),
        (lambda: c.confusion([0, 1], [0], classes=2), "predictions has 1 rows"),
        (lambda: c.accuracy([0, 1], [0]), "predictions has shape"),
        (lambda: c.ece([0], [0], [[0.5, 0.5]], bins=0), "bins = 0"),
        (lambda: c.auroc([0], [0.5]), "probabilities has shape"),
        (lambda: c.auroc([0, 1], [[0.5, 0.5]]), "probabilities has 1 rows"),
        (lambda: c.sensitivity([0], [0], classes=2, positive=2), "positive = 2"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 30))
def test_order_of_rows_does_not_matter_and_rates_stay_in_range(seed, classes, n):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)
    predictions, order = probabilities.argmax(axis=1), rng.permutation(n)
    for measure in (
        lambda y, p, _: c.balanced_accuracy(y, p, classes=classes),
        lambda y, p, _: c.specificity(y, p, classes=classes),
        lambda y, _, s: c.auroc(y, s),
        c.ece,
    ):
        value = measure(labels, predictions, probabilities)
        again = measure(labels[order], predictions[order], probabilities[order])
        assert again == pytest.approx(value, nan_ok=True)
        assert np.isnan(value) or -1e-12 <= value <= 1 + 1e-12
