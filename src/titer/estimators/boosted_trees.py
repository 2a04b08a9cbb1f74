"""Gradient-boosted trees (XGBoost): scores of raw rows, and no gradient."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.extras import need
from titer.core.plugins import Count, Positive, estimator
from titer.core.protocols import Estimator, Fitted, TrainingData

_SEEDS = 2**31 - 1
Part = Annotated[float, Field(gt=0, le=1)]


@estimator("boosted-trees", paper="Chen, Guestrin 2016, arXiv:1603.02754, section 2 (XGBoost)")
def boosted_trees(
    *,
    rounds: Count = 200,
    depth: Count = 3,
    learning_rate: Positive = 0.1,
    features: Part = 0.2,
    rows: Part = 0.8,
    patience: Count = 20,
) -> Estimator:
    """Gradient-boosted trees; needs the extra `omics`.

    Args:
        rounds: trees a class at most; fewer where the validation loss stops falling.
        depth: splits from the root to a leaf at most.
        learning_rate: share of each tree that counts.
        features: share of the features that each tree may use.
        rows: share of the rows that each tree sees.
        patience: rounds without a better validation loss before training stops.
    """

    def fit(train: TrainingData, *, rng: Generator, kept: bytes | None = None) -> Fitted:
        xgboost = need("xgboost", "omics")
        if kept is not None:
            booster = xgboost.Booster({"nthread": 1})
            booster.load_model(bytearray(kept))
            return _fitted(booster)
        settings = {
            "objective": "multi:softprob",
            "num_class": train.classes,
            "max_depth": depth,
            "learning_rate": learning_rate,
            "colsample_bytree": features,
            "subsample": rows,
            "tree_method": "hist",
            "nthread": 1,
            "seed": int(torch.randint(_SEEDS, (1,), generator=rng)),
            "verbosity": 0,
        }
        booster = xgboost.train(
            settings,
            _matrix(xgboost, train, "train"),
            num_boost_round=rounds,
            evals=[(_matrix(xgboost, train, "validation"), "validation")],
            early_stopping_rounds=patience,
            verbose_eval=False,
        )
        return _fitted(booster[: booster.best_iteration + 1])

    return fit


def _matrix(xgboost: Any, data: TrainingData, part: str) -> Any:
    """Return a part in XGBoost's own form; rows weigh as the recipe's class weights say."""
    rows = data.train if part == "train" else data.validation
    y = rows.y.cpu().numpy()
    weights = None
    if data.recipe.class_weights == "balanced":
        counts = np.bincount(data.train.y.cpu().numpy(), minlength=data.classes).clip(1)
        weights = (counts.sum() / (data.classes * counts))[y]
    return xgboost.DMatrix(rows.x.cpu().numpy(), label=y, weight=weights)


def _fitted(booster: Any) -> Fitted:
    state = bytes(booster.save_raw(raw_format="ubj"))

    def logits(x: Tensor) -> Tensor:
        margins = booster.inplace_predict(x.detach().cpu().float().numpy(), predict_type="margin")
        return torch.from_numpy(np.ascontiguousarray(margins, dtype=np.float32)).to(x)

    return Fitted(logits=logits, digest=hashlib.sha256(state).hexdigest(), state=state)
