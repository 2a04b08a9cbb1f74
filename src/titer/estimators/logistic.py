"""Logistic regression (scikit-learn) on standardised features: the baseline of every table."""

from __future__ import annotations

from torch import Generator

from titer.core.plugins import Count, Positive, estimator
from titer.core.protocols import Estimator, Fitted, TrainingData
from titer.estimators._scikit import fitted, seed_of, taught, weights_of


@estimator("logistic", paper="Cox 1958, 10.1111/j.2517-6161.1958.tb00292.x; multinomial, L2-penalised")
def logistic(*, penalty: Positive = 1.0, steps: Count = 1000) -> Estimator:
    """Logistic regression with an L2 penalty.

    Args:
        penalty: weight of the penalty; larger ones give smaller coefficients.
        steps: of the solver, at most.
    """

    def fit(train: TrainingData, *, rng: Generator, kept: bytes | None = None) -> Fitted:  # noqa: ARG001 - refitted: it is cheap
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        linear = LogisticRegression(
            C=1.0 / penalty, max_iter=steps, class_weight=weights_of(train), random_state=seed_of(rng)
        )
        model = taught(make_pipeline(StandardScaler(), linear), train)
        scaler = model[0]
        learned = [scaler.mean_, scaler.scale_, linear.coef_, linear.intercept_]
        return fitted(model.predict_proba, model.classes_, train.classes, learned)

    return fit
