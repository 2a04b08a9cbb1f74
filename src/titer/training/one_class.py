"""Training on one class alone: the network learns what is normal, and the validation part where that ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.protocols import TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.training.objectives import all_logits

NORMAL = 0
"""The class that is learned."""


@runtime_checkable
class Thresholded(Protocol):
    """A network of two logits, whose difference is how far a score lies above a threshold, times its sharpness."""

    threshold: Tensor
    sharpness: Tensor

    def set_threshold(self, threshold: float, sharpness: float) -> None:
        """Set both."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OneClass:
    """The objective: the mean score of normal rows; stopped on that of the validation part's normal rows.

    Each look at the validation part also sets the network's threshold: that of the best balanced accuracy there.
    """

    @property
    def key(self) -> str:
        """Return the objective's name."""
        return "one-class"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the mean score of the batch's normal rows."""
        normal = x[y == NORMAL]
        # A batch without a normal row teaches nothing, but the optimiser's step needs a graph.
        return _scores(net, logits(normal)).mean() if len(normal) else 0.0 * logits(x).sum()

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return minus the mean score of the validation part's normal rows."""
        scores = _scores(net, all_logits(logits, part.x))
        normal = scores[part.y == NORMAL]
        assert isinstance(net, Thresholded)
        net.set_threshold(best_threshold(scores, part.y), 1.0 / max(float(normal.std()), 1e-6))
        return -float(normal.mean())


def own_objective(net: nn.Module, data: TrainingData) -> OneClass | None:
    """Return the objective of a network that learns one class alone; None for every other network.

    Raises:
        Incompatible: there are more classes than the one that is learned and the other.
    """
    if not isinstance(net, Thresholded):
        return None
    if data.output != "classes" or data.classes != 2:
        raise Incompatible(f"one class is learned of two, not of {data.classes} {data.output}")
    return OneClass()


def best_threshold(scores: Tensor, y: Tensor) -> float:
    """Return the threshold of the best balanced accuracy, half way between two scores float[N]; y is 0 or 1."""
    order = scores.argsort()
    ranked, anomalous = scores[order], y[order] != NORMAL
    normal_below = (~anomalous).cumsum(0) / (~anomalous).sum()
    anomalous_above = 1 - anomalous.cumsum(0) / anomalous.sum()
    best = int((normal_below + anomalous_above)[:-1].argmax())
    return float((ranked[best] + ranked[best + 1]) / 2)


def _scores(net: nn.Module, logits: Tensor) -> Tensor:
    assert isinstance(net, Thresholded)
    return (logits[:, 1] - logits[:, 0]) / net.sharpness + net.threshold
