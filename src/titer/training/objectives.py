"""What training minimises for each kind of output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.outputs import Output
from titer.core.protocols import TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.training.loop import CrossEntropy, Objective, class_weights

_PASSED_ROWS = 512
_SMOOTH = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """The mean loss of a batch's logits.

    Classes: cross-entropy. Findings: binary cross-entropy. A value: smooth L1 (Huber) of the error over `spread`, the
    standard deviation of the training part. A mask: cross-entropy of the pixels and 1 - soft Dice, as nnU-Net trains
    (Isensee et al. 2021, Nature Methods 18). `weights` float[K] weigh the classes, or the present findings.
    """

    output: Output = "classes"
    weights: Tensor | None = None
    spread: float = 1.0

    @property
    def key(self) -> str:
        """Return kind and settings."""
        return f"{self.output}/{None if self.weights is None else self.weights.tolist()}/{self.spread}"

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss, a number."""
        return _PENALTIES[self.output](self, logits, y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """Standard training on a penalty, stopped on its mean over the validation part; logits over a temperature."""

    penalty: Penalty
    temperature: float = 1.0

    @property
    def key(self) -> str:
        """Return the objective's name and settings."""
        return f"supervised/T={self.temperature}/{self.penalty.key}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the penalty of the batch."""
        return self.penalty(logits(x) / self.temperature, y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return minus the validation loss."""
        return -float(self.penalty(all_logits(logits, part.x) / self.temperature, part.y))


def penalty(data: TrainingData) -> Penalty:
    """Return what a training on these data minimises, its weights and its spread measured on the training part."""
    y = data.train.y
    if data.output == "value":
        spread = float(y.double().std()) or 1.0
        return Penalty(output="value", spread=spread)
    return Penalty(output=data.output, weights=_weights(data))


def standard(data: TrainingData, *, temperature: float = 1.0) -> Objective:
    """Return the objective of standard training, the logits divided by `temperature`."""
    chosen = penalty(data)
    if data.output == "classes":
        return CrossEntropy(weights=chosen.weights, temperature=temperature)
    return Supervised(penalty=chosen, temperature=temperature)


def all_logits(logits: Logits, x: Tensor) -> Tensor:
    """Return the logits of all rows x [N, ...], in float32 and without a graph."""
    with torch.no_grad():
        return torch.cat([logits(part) for part in torch.split(x, _PASSED_ROWS)]).float()


def row_loss(output: Output, logits: Tensor, y: Tensor) -> Tensor:
    """Return the usual loss of each row, float[N]: cross-entropy, its mean over findings or pixels, or |error|."""
    if output == "value":
        return (logits.squeeze(1) - y).abs()
    if output == "labels":
        losses = functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype), reduction="none")
        return losses.mean(1)
    losses = functional.cross_entropy(logits, y, reduction="none")
    return losses if output == "classes" else losses.flatten(1).mean(1)


def _weights(data: TrainingData) -> Tensor | None:
    """Return float[K]: for classes and pixels inverse to their frequency, for findings the odds of their absence.

    Costs that the data name weigh instead: of findings as they are, of classes with mean 1 over the rows.
    """
    y, mode = data.train.y, data.recipe.class_weights
    if data.costs is not None:
        return _costs(data.costs, data)
    if data.output != "labels":
        return class_weights(y.flatten(), data.classes, mode)
    if mode == "none":
        return None
    present = y.float().sum(0).clamp_min(1)
    return (len(y) - present).clamp_min(1) / present


def _costs(costs: tuple[float, ...], data: TrainingData) -> Tensor:
    y, weights = data.train.y, torch.tensor(costs, device=data.train.y.device)
    return weights if data.output == "labels" else weights / weights[y.flatten()].mean()


def _of_classes(penalty: Penalty, logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y, weight=penalty.weights)


def _of_labels(penalty: Penalty, logits: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype), pos_weight=penalty.weights)


def _of_value(penalty: Penalty, logits: Tensor, y: Tensor) -> Tensor:
    return functional.smooth_l1_loss(logits.squeeze(1) / penalty.spread, y.to(logits.dtype) / penalty.spread)


def _of_mask(penalty: Penalty, logits: Tensor, y: Tensor) -> Tensor:
    """Return cross-entropy and 1 - soft Dice of each class of the foreground over the batch's pixels."""
    chances = logits.softmax(1)[:, 1:].flatten(2)
    truth = functional.one_hot(y, logits.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
    overlap = (chances * truth).sum((0, 2))
    areas = chances.sum((0, 2)) + truth.sum((0, 2))
    soft_dice = (2 * overlap + _SMOOTH) / (areas + _SMOOTH)
    return functional.cross_entropy(logits, y, weight=penalty.weights) + 1 - soft_dice.mean()


_PENALTIES: dict[Output, Callable[[Penalty, Tensor, Tensor], Tensor]] = {
    "classes": _of_classes,
    "labels": _of_labels,
    "value": _of_value,
    "mask": _of_mask,
}
