"""What the attacker wants of a classifier, as a loss to climb, a margin and a test of success."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def log_odds_of_error(logits: Tensor, y: Tensor) -> Tensor:
    """Return log((1 - p_y) / p_y), float[N], for logits [N, K].

    The cross-entropy is softplus of it, so both have the same direction of steepest ascent, row by row; but the
    cross-entropy's gradient carries the factor 1 - p_y, which float32 rounds to zero for a confident model (how
    defensive distillation hides its gradients: Carlini and Wagner 2017, arXiv:1608.04644, section IV).
    """
    return _others(logits, y).logsumexp(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)


def lead_of_error(logits: Tensor, y: Tensor) -> Tensor:
    """Return how far the best other class leads the class y, float[N], for logits [N, K]."""
    return _others(logits, y).amax(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)


def _others(logits: Tensor, y: Tensor) -> Tensor:
    return logits.scatter(1, y.unsqueeze(1), float("-inf"))


@dataclass(frozen=True, slots=True)
class AnyError:
    """Untargeted: any class but the true one."""

    name: str = "any-error"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of an error, float[N]: the cross-entropy's direction without its vanishing."""
        return log_odds_of_error(logits, y)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return how far another class leads the true one, float[N]."""
        return lead_of_error(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the prediction is not the true class."""
        return logits.argmax(1) != y

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N], all True."""
        return torch.ones_like(y, dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class Targeted:
    """One class that the attacker wants to see: an invented finding, where it is not the true one."""

    target: int
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of the target class, float[N]."""
        return -log_odds_of_error(logits, torch.full_like(y, self.target))

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return how far the target leads every other class, float[N]."""
        return -lead_of_error(logits, torch.full_like(y, self.target))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the prediction is the target, and not rightly so."""
        return (logits.argmax(1) == self.target) & (y != self.target)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: the target is not the true class."""
        return y != self.target


@dataclass(frozen=True, slots=True)
class Hidden:
    """A finding that the attacker wants overlooked: malignant -> benign."""

    finding: int
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of any class but the finding, float[N]."""
        return log_odds_of_error(logits, torch.full_like(y, self.finding))

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return how far another class leads the finding, float[N]."""
        return lead_of_error(logits, torch.full_like(y, self.finding))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the finding is there, and the prediction is another class."""
        return (logits.argmax(1) != self.finding) & (y == self.finding)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: the finding is there."""
        return y == self.finding


@dataclass(frozen=True, slots=True)
class HighestLoss:
    """Training's goal: the largest cross-entropy, never satisfied, so no row leaves early (Madry 2018, eq. 2.1)."""

    name: str = "highest-loss"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of an error, float[N]: the cross-entropy's direction without its vanishing."""
        return log_odds_of_error(logits, y)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return how far another class leads the true one, float[N]."""
        return lead_of_error(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return bool[N], all False."""
        return torch.zeros_like(y, dtype=torch.bool)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N], all True."""
        return torch.ones_like(y, dtype=torch.bool)
