"""What scikit-learn's classifiers share: class weights, chances as logits, and a digest of what was learned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from titer.core.protocols import Fitted, TrainingData

_SEEDS = 2**31 - 1
_SMALLEST = 1e-6


def seed_of(rng: Generator) -> int:
    """Return a seed drawn from `rng`."""
    return int(torch.randint(_SEEDS, (1,), generator=rng))


def weights_of(train: TrainingData) -> str | None:
    """Return scikit-learn's name of the recipe's class weights."""
    return "balanced" if train.recipe.class_weights == "balanced" else None


def taught(model: Any, train: TrainingData) -> Any:
    """Return the classifier fitted on the training part."""
    return model.fit(train.train.x.cpu().numpy(), train.train.y.cpu().numpy())


def fitted(chances: Callable[[np.ndarray], np.ndarray], known: Any, classes: int, learned: Sequence[Any]) -> Fitted:
    """Return the model: `chances` [N, classes known to it] of raw rows; `learned` is what its digest is of.

    A chance of 0 counts as one in a million: an average of votes is no more certain than that.
    """
    columns = np.asarray(known, dtype=np.int64)

    def logits(x: Tensor) -> Tensor:
        rows = x.detach().cpu().float().numpy()
        all_classes = np.zeros((len(rows), classes))
        all_classes[:, columns] = chances(rows)
        return torch.from_numpy(np.log(all_classes.clip(_SMALLEST))).to(x)

    sha = hashlib.sha256()
    for array in learned:
        sha.update(np.ascontiguousarray(array).tobytes())
    return Fitted(logits=logits, digest=sha.hexdigest())
