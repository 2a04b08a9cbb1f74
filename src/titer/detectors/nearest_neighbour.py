"""Nearest neighbours: do the training rows whose features are nearest have the class that the model says?"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, detector
from titer.core.protocols import Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import Keepable, State, needs_rows, some
from titer.engine.features import answers, in_parts, penultimate

_SMALLEST = 1e-12


@detector(
    "nearest-neighbour",
    paper="Papernot, McDaniel 2018, arXiv:1803.04765, algorithm 1 (deep k-NN); evaded by arXiv:1903.08333",
)
def nearest_neighbour(
    *, neighbours: Count = 50, measure: Literal["labels", "distance"] = "distance", rows: Count = 5000
) -> Detector:
    """Nearest neighbours among the training part's features.

    Features are those of the last layer but one, each row scaled to length 1.

    Args:
        neighbours: how many are asked.
        measure: `labels`, the share of them whose class is not the one that the model says (the paper's
            nonconformity); `distance`, how far the last of them is.
        rows: training rows that are kept, at most.
    """

    def learn(model: Model, train: TrainingData, rng: Generator) -> State:  # noqa: ARG001 - nothing is drawn
        if measure == "labels" and model.output != "classes":
            raise Incompatible(f'measure = "labels" asks for one class a row, and the output is {model.output!r}')
        needs_rows("nearest-neighbour", train, neighbours + 1)
        part = some(train.train, rows)
        read = penultimate(model, part.x)
        return {"kept": functional.normalize(in_parts(read, part.x), dim=1), "y": part.y}

    def watch(model: Model, state: State, like: Tensor) -> tuple[Logits, Logits | None]:
        read, kept = penultimate(model, like), state["kept"]
        if measure == "distance":
            return lambda x: _distances(read, kept, x, neighbours)[0][:, -1], None
        return _nonconformity(model, read, kept, state["y"], neighbours)

    return Keepable(name="nearest-neighbour", learn=learn, watch=watch)


def _distances(read: Logits, kept: Tensor, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return distances float[N, count], the nearest first, and the places int64[N, count] of those training rows."""
    away = (2 - 2 * functional.normalize(read(x), dim=1) @ kept.T).clamp_min(_SMALLEST).sqrt()
    nearest = away.topk(min(count, len(kept)), dim=1, largest=False)
    return nearest.values, nearest.indices


def _nonconformity(model: Model, read: Logits, kept: Tensor, y: Tensor, count: int) -> tuple[Logits, Logits]:
    """Return the share of neighbours of another class than the model's, and a stand-in with a slope.

    The stand-in weighs every training row by how much nearer than the last neighbour it is, through a sigmoid, as
    counting has no slope (Sitawarin and Wagner 2019, arXiv:1903.08333).
    """

    def hard(x: Tensor) -> Tensor:
        said = answers(model, x).argmax(1, keepdim=True)
        return (y[_distances(read, kept, x, count)[1]] != said).to(x.dtype).mean(1)

    def soft(x: Tensor) -> Tensor:
        away = (2 - 2 * functional.normalize(read(x), dim=1) @ kept.T).clamp_min(_SMALLEST).sqrt()
        edge = away.detach().topk(min(count, len(kept)), dim=1, largest=False).values[:, -1:]
        near = torch.sigmoid((edge - away) * (4 / edge.clamp_min(_SMALLEST)))
        other = (y != answers(model, x).argmax(1, keepdim=True)).to(x.dtype)
        return (near * other).sum(1) / near.sum(1)

    return hard, soft
