"""Measures of a classifier on labels [n], predictions [n] and probabilities [n, classes].

A measure that a class's absence leaves undefined is NaN, never 0 and never an average over the classes that happen to
be there: a subgroup without a single ill patient says nothing about sensitivity. Rates are fractions in [0, 1].

With `positive` given and two classes, the rates are those of the positive class. Otherwise they are macro averages,
one class against the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Whole = NDArray[np.int64]
Real = NDArray[np.float64]


def confusion(labels: ArrayLike, predictions: ArrayLike, *, classes: int) -> Whole:
    """Count samples by true class (rows) and predicted class (columns): [classes, classes].

    Raises ValueError where the two differ in length or hold a class outside 0 .. classes - 1.
    """
    truth, judged = _classes("labels", labels, classes), _classes("predictions", predictions, classes)
    if truth.shape != judged.shape:
        raise ValueError(f"predictions has {judged.size} rows: allowed is as many as labels, {truth.size}")
    return np.bincount(truth * classes + judged, minlength=classes * classes).reshape(classes, classes)


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return the share of rows whose prediction is the label; NaN for no rows."""
    truth, judged = np.asarray(labels), np.asarray(predictions)
    if truth.shape != judged.shape:
        raise ValueError(f"predictions has shape {judged.shape}: allowed is that of labels, {truth.shape}")
    return float(np.mean(truth == judged)) if truth.size else float("nan")


def balanced_accuracy(labels: ArrayLike, predictions: ArrayLike, *, classes: int) -> float:
    """Return the mean recall over all classes (Brodersen et al. 2010); NaN where a class has no sample.

    scikit-learn averages over the classes that are present instead; with every class present the two agree.
    """
    table = confusion(labels, predictions, classes=classes)
    return float(np.mean(_ratio(np.diag(table), table.sum(axis=1))))


def sensitivity(labels: ArrayLike, predictions: ArrayLike, *, classes: int, positive: int | None = None) -> float:
    """Return the share of positives that are found, TP / (TP + FN) (Altman and Bland 1994)."""
    return _rate(labels, predictions, classes, positive, of_positives=True)


def specificity(labels: ArrayLike, predictions: ArrayLike, *, classes: int, positive: int | None = None) -> float:
    """Return the share of negatives that are cleared, TN / (TN + FP) (Altman and Bland 1994)."""
    return _rate(labels, predictions, classes, positive, of_positives=False)


def fpr(labels: ArrayLike, predictions: ArrayLike, *, classes: int, positive: int | None = None) -> float:
    """Return the false positive rate, 1 - specificity: healthy patients called ill."""
    return 1.0 - specificity(labels, predictions, classes=classes, positive=positive)


def fnr(labels: ArrayLike, predictions: ArrayLike, *, classes: int, positive: int | None = None) -> float:
    """Return the false negative rate, 1 - sensitivity: ill patients called healthy."""
    return 1.0 - sensitivity(labels, predictions, classes=classes, positive=positive)


def auroc(labels: ArrayLike, probabilities: ArrayLike, *, positive: int | None = None) -> float:
    """Return the area under the ROC curve by the Mann-Whitney statistic, ties counted half (Hanley and McNeil 1982).

    `probabilities` is [n, classes]. With two classes and `positive`, the area of that class's column; otherwise the
    macro average one-vs-rest (Provost and Domingos 2001, unweighted). NaN where a class or its rest has no sample, or
    where a probability is NaN.
    """
    scores = _probabilities(probabilities)
    truth = _classes("labels", labels, scores.shape[1])
    if len(truth) != len(scores):
        raise ValueError(f"probabilities has {len(scores)} rows: allowed is as many as labels, {len(truth)}")
    if np.isnan(scores).any():
        return float("nan")
    chosen = range(scores.shape[1]) if positive is None or scores.shape[1] != 2 else [_index(positive, 2)]
    return float(np.mean([_area(truth == index, scores[:, index]) for index in chosen]))


def ece(labels: ArrayLike, predictions: ArrayLike, probabilities: ArrayLike, *, bins: int = 15) -> float:
    """Return the expected calibration error, a fraction (Guo et al. 2017, equation 3), over equal-width bins.

    Confidence is the probability of the predicted class; bin m holds ((m - 1) / bins, m / bins]. NaN for no rows or
    where a probability is NaN.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins}: allowed is 1 or more")
    scores = _probabilities(probabilities)
    judged = _classes("predictions", predictions, scores.shape[1])
    if not len(judged) == len(scores) == np.size(labels):
        raise ValueError(f"probabilities has {len(scores)} rows: allowed is as many as labels and predictions")
    confidence = scores[np.arange(len(judged)), judged]
    if not confidence.size or np.isnan(confidence).any():
        return float("nan")
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # |accuracy - confidence| of a bin, weighted by its share of rows, is |sum of gaps| / n: no bin can divide by zero
    gaps = np.bincount(place, weights=(np.asarray(labels) == judged) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / confidence.size)


def _rate(
    labels: ArrayLike, predictions: ArrayLike, classes: int, positive: int | None, *, of_positives: bool
) -> float:
    table = confusion(labels, predictions, classes=classes)
    hits, per_class, per_guess = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    if of_positives:
        rates = _ratio(hits, per_class)
    else:
        rates = _ratio(table.sum() - per_class - per_guess + hits, table.sum() - per_class)
    if positive is None or classes != 2:
        return float(np.mean(rates))
    return float(rates[_index(positive, classes)])


def _area(is_positive: NDArray[np.bool_], scores: Real) -> float:
    from scipy.stats import rankdata

    positives = int(is_positive.sum())
    negatives = is_positive.size - positives
    if not positives or not negatives:
        return float("nan")
    wins = rankdata(scores)[is_positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def _ratio(part: Whole, whole: Whole) -> Real:
    result: Real = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=result, where=whole > 0)


def _classes(name: str, values: ArrayLike, classes: int) -> Whole:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: allowed is one value per row, [n]")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        raise ValueError(f"{name} holds {array.min()} to {array.max()}: allowed are classes 0 to {classes - 1}")
    return array.astype(np.int64)


def _probabilities(values: ArrayLike) -> Real:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(f"probabilities has shape {array.shape}: allowed is [n, classes] with at least 2 classes")
    return array


def _index(positive: int, classes: int) -> int:
    if not 0 <= positive < classes:
        raise ValueError(f"positive = {positive}: allowed is a class, 0 to {classes - 1}")
    return positive
