"""Loss-based filtering: rows with a wrong label are learned last, rows with a trigger first."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Natural, cleaner
from titer.core.protocols import Cleaner, TrainingData
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import all_logits, row_loss, standard
from titer.training.worst_case import trainable


@cleaner(
    "loss-filter",
    paper="high: Han et al. 2018 (the small-loss rule), arXiv:1804.06872, section 3; "
    "low: Li et al. 2021 (Anti-Backdoor Learning), arXiv:2110.11571, section 3.2",
)
def loss_filter(*, suspicious: Literal["high", "low"] = "high", epochs: Natural = 4) -> Cleaner:
    """Loss-based filtering.

    The score is the row's cross-entropy after a short training, before a network has learned rows by heart.

    Args:
        suspicious: `high` for labels that were flipped, `low` for triggers, which are learned before anything else.
        epochs: of that training; with 0 the loss is that of the model as it is.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Tensor:
        judge = model if not epochs else _short(model, train, epochs, rng)
        losses = row_loss(train.output, all_logits(judge.logits, train.train.x), train.train.y)
        return (losses if suspicious == "high" else -losses).cpu()

    return run


def _short(model: Model, train: TrainingData, epochs: int, rng: Generator) -> Model:
    """Return the model's network trained anew for a few epochs."""
    seed = int(torch.randint(2**62, (1,), generator=rng))
    data = replace(train, recipe=replace(train.recipe, epochs=epochs, patience=epochs))
    return fit(anew(model), fresh(trainable(model), seed), data, standard(data), seed=seed)
