"""Distribution shift: how far an input's features lie from those of the training part, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State, needs_rows, some
from titer.engine.features import in_parts, penultimate


@detector("shift", paper="Lee, Lee, Lee, Shin 2018, arXiv:1807.03888, eq. 1 and 2 (penultimate features)")
def shift(*, rows: Count = 5000) -> Detector:
    """Mahalanobis distance of the features to the nearest class.

    The covariance is one for all classes, shrunk towards a multiple of the identity as far as the number of rows asks
    for (Ledoit and Wolf 2004). Models of other outputs than classes have one mean for all rows.

    Args:
        rows: training rows that means and covariance are measured on, at most.
    """

    def learn(model: Model, train: TrainingData, rng: Generator) -> State:  # noqa: ARG001 - nothing is drawn
        needs_rows("shift", train, 2)
        part = some(train.train, rows)
        read = penultimate(model, part.x)
        labels = part.y if model.output == "classes" else torch.zeros(len(part), dtype=torch.int64)
        far = mahalanobis(in_parts(read, part.x), labels)
        return {"whiten": far.whiten, "centres": far.centres}

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, None]:
        read, far = penultimate(model, like), Distance(**state)
        return lambda x: far(read(x)), None

    return Keepable(name="shift", learn=learn, watch=watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """The squared distance of features to the nearest of `centres` [K, D], both whitened by `whiten` [D, D]."""

    whiten: Tensor
    centres: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return float[N] for features [N, D]."""
        away: Tensor = ((features @ self.whiten).unsqueeze(1) - self.centres).square().sum(2)
        return away.amin(1)


def mahalanobis(features: Tensor, y: Tensor) -> Distance:
    """Return the function from features [N, D] to the squared Mahalanobis distance to the nearest class mean, float[N].

    `features` [n, D] and their classes y int64[n] give means and the shared covariance.
    """
    from sklearn.covariance import ledoit_wolf

    wide = features.double()
    means = torch.stack([wide[y == one].mean(0) for one in y.unique()])
    centred = wide - means[torch.searchsorted(y.unique(), y)]
    covariance, _ = ledoit_wolf(centred.cpu().numpy(), assume_centered=True)
    # Distances are those of whitened features; a covariance of zero, of features that never vary, is taken as tiny.
    matrix = torch.from_numpy(covariance).to(wide) + 1e-9 * torch.eye(
        wide.shape[1], dtype=wide.dtype, device=wide.device
    )
    whiten = torch.linalg.inv(torch.linalg.cholesky(matrix)).T.to(features)
    return Distance(whiten=whiten.contiguous(), centres=(means @ whiten.double()).to(features))
