"""What the attacker wants, as a loss to climb and a test of success."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from titer.core.errors import SpecError
from titer.core.threat import Goal


def log_odds_of_error(logits: Tensor, y: Tensor) -> Tensor:
    """Return log((1 - p_y) / p_y), float[N], for logits [N, K].

    The cross-entropy is softplus of it, so both have the same direction of steepest ascent, row by row; but the
    cross-entropy's gradient carries the factor 1 - p_y, which float32 rounds to zero for a confident model (how
    defensive distillation hides its gradients: Carlini and Wagner 2017, arXiv:1608.04644, section IV).
    """
    others = logits.scatter(1, y.unsqueeze(1), float("-inf"))
    return others.logsumexp(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)


@dataclass(frozen=True, slots=True)
class AnyError:
    """Untargeted: any class but the true one."""

    name: str = "any-error"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of an error, float[N]: the cross-entropy's direction without its vanishing."""
        return log_odds_of_error(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the prediction is not the true class."""
        return logits.argmax(1) != y


@dataclass(frozen=True, slots=True)
class Targeted:
    """One class that the attacker wants to see."""

    target: int
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of the target class, float[N]."""
        return -log_odds_of_error(logits, torch.full_like(y, self.target))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the prediction is the target, and not rightly so."""
        return (logits.argmax(1) == self.target) & (y != self.target)


@dataclass(frozen=True, slots=True)
class HighestLoss:
    """Training's goal: the largest cross-entropy, never satisfied, so no row leaves early (Madry 2018, eq. 2.1)."""

    name: str = "highest-loss"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of an error, float[N]: the cross-entropy's direction without its vanishing."""
        return log_odds_of_error(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return bool[N], all False."""
        return torch.zeros_like(y, dtype=torch.bool)


def goal(name: str, classes: tuple[str, ...], where: str) -> Goal:
    """Return the goal of a plan: `any-error`, or `targeted:CLASS` with a class's name."""
    if name == "any-error":
        return AnyError()
    kind, _, wanted = name.partition(":")
    if kind == "targeted" and wanted in classes:
        return Targeted(classes.index(wanted), name)
    allowed = ", ".join(["any-error", *(f"targeted:{one}" for one in classes)])
    raise SpecError(f"{where}.goal = {name!r} is not known: allowed are {allowed}")
