"""What the attacker wants of a model of several findings, or of one that measures a value.

Each goal's margin is above 0 exactly where it is won, and its loss has a gradient wherever the model has one, however
confident it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Direction = Literal["shift", "raise", "lower"]

_LINEAR = -15.0


def error_leads(logits: Tensor, y: Tensor) -> Tensor:
    """Return the log odds that each finding is called wrongly, float[N, L], for logits [N, L] and y int64[N, L]."""
    return torch.where(y > 0, -logits, logits)


@dataclass(frozen=True, slots=True)
class AnyFinding:
    """Any finding flipped: one that is there overlooked, or one that is not there reported."""

    name: str = "any-error"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log of the summed odds of a wrong finding, float[N]: a smooth maximum, led by the nearest one."""
        return error_leads(logits, y).logsumexp(1)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the log odds of the finding that is nearest to being wrong, or wrong most of all, float[N]."""
        return error_leads(logits, y).amax(1)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: a finding is wrong."""
        return ((logits > 0) != (y > 0)).any(1)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N], all True."""
        return every_row(y)


@dataclass(frozen=True, slots=True)
class OneFinding:
    """One finding hidden where it is there, or invented where it is not; the others may be what they are."""

    finding: int
    hide: bool
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return the log odds of what the attacker wants of the finding, float[N]."""
        wanted = logits[:, self.finding]
        return -wanted if self.hide else wanted

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the same log odds, float[N]."""
        return self.loss(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the goal applies, and the finding is called as the attacker wants."""
        return ((logits[:, self.finding] > 0) != self.hide) & self.applies(y)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: the finding is there, if it is to be hidden, and else is not."""
        return (y[:, self.finding] > 0) == self.hide


@dataclass(frozen=True, slots=True)
class Shifted:
    """A value moved by more than `tolerance` of its own unit: to either side, up, or down."""

    tolerance: float
    direction: Direction
    name: str

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the error to the wanted side, float[N], in the label's unit."""
        if self.direction == "shift":
            return absolute_error(logits, y)
        error = logits[:, 0] - y
        return error if self.direction == "raise" else -error

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return by how much the error passes the tolerance, float[N]."""
        return self.loss(logits, y) - self.tolerance

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: it does."""
        return self.margin(logits, y) > 0

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N], all True."""
        return every_row(y)


@dataclass(frozen=True, slots=True)
class Endless:
    """Training's goal: the largest `climbed` loss, never satisfied, so that no row leaves early."""

    climbed: Callable[[Tensor, Tensor], Tensor]
    name: str = "highest-loss"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the climbed loss, float[N]."""
        return self.climbed(logits, y)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the same."""
        return self.climbed(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return bool[N], all False."""
        return ~every_row(y)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N], all True."""
        return every_row(y)


def log_binary_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the log of the summed binary cross-entropy of the findings, float[N].

    It has the direction of that loss, row by row, but not its vanishing where the model is sure of every finding.
    """
    leads = error_leads(logits, y)
    # log softplus(z) is z to float32's last digit where z is far below 0, and there softplus itself would be lost.
    logs = torch.where(leads < _LINEAR, leads, functional.softplus(leads.clamp_min(_LINEAR)).log())
    return logs.logsumexp(1)


def absolute_error(logits: Tensor, y: Tensor) -> Tensor:
    """Return |f(x) - y|, float[N]; with the slope of a rise at 0, where abs has none and many an attack begins."""
    error = logits[:, 0] - y
    return torch.where(error >= 0, error, -error)


def every_row(y: Tensor) -> Tensor:
    """Return bool[N], all True."""
    return torch.ones(len(y), dtype=torch.bool, device=y.device)
