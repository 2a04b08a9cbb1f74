"""Random forest (scikit-learn): the mean of many trees' votes."""

from __future__ import annotations

from torch import Generator

from titer.core.plugins import Count, estimator
from titer.core.protocols import Estimator, Fitted, TrainingData
from titer.estimators._scikit import fitted, seed_of, taught, weights_of


@estimator("random-forest", paper="Breiman 2001, 10.1023/A:1010933404324")
def random_forest(*, trees: Count = 200, leaf: Count = 1) -> Estimator:
    """Random forest.

    Args:
        trees: how many trees vote.
        leaf: training rows in a leaf at least.
    """

    def fit(train: TrainingData, *, rng: Generator, kept: bytes | None = None) -> Fitted:  # noqa: ARG001 - refitted: it is cheap
        from sklearn.ensemble import RandomForestClassifier

        model = taught(
            RandomForestClassifier(
                n_estimators=trees,
                min_samples_leaf=leaf,
                class_weight=weights_of(train),
                n_jobs=1,
                random_state=seed_of(rng),
            ),
            train,
        )
        grown = [one.tree_ for one in model.estimators_]
        learned = [part for tree in grown for part in (tree.feature, tree.threshold, tree.value)]
        return fitted(model.predict_proba, model.classes_, train.classes, learned)

    return fit
