"""Distribution shift: how far an input's features lie from those of the training part, class by class."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State, needs_rows, some
from titer.engine.features import in_parts, penultimate

_COLUMNS = 256


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
        whiten, centres = whitening(in_parts(read, part.x), labels)
        return {"whiten": whiten, "centres": centres}

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, None]:
        read, far = penultimate(model, like), distance(state["whiten"], state["centres"])
        return lambda x: far(read(x)), None

    return Keepable(name="shift", learn=learn, watch=watch)


def distance(whiten: Tensor, centres: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from features [N, D] to the squared distance to the nearest centre, float[N].

    Features are whitened by the upper triangular `whiten` [D, D]; `centres` [K, D] are already. For one input the time
    goes into reading the matrix, so that it is kept in blocks of columns without most of the zeros.
    """
    parts = whiten.split(_COLUMNS, dim=1)
    ends = accumulate(part.shape[1] for part in parts)
    blocks = [part[:end].contiguous() for part, end in zip(parts, ends, strict=True)]

    def far(features: Tensor) -> Tensor:
        white = torch.cat([features[:, : len(block)] @ block for block in blocks], dim=1)
        away: Tensor = (white.unsqueeze(1) - centres).square().sum(2)
        return away.amin(1)

    return far


def whitening(features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what whitens features, upper triangular [D, D], and the whitened class means [K, D].

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
    return whiten.contiguous(), (means @ whiten.double()).to(features)
