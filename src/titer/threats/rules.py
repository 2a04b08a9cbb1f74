"""Rules of the domain: what no real input ever breaks, however large the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from titer.core.threat import Region

_STORED = 1e-3
"""How far from a whole step float32 may put a stored value, in steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Every value lies in [low, high]; either may be infinite, or differ by feature."""

    low: float | Tensor
    high: float | Tensor
    text: str = ""
    shrinks: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the rule as a sentence."""
        if self.text:
            return self.text
        low, high = (torch.as_tensor(bound) for bound in (self.low, self.high))
        own = ", each feature in its own limits" if low.numel() > 1 or high.numel() > 1 else ""
        return f"each value in [{float(low.min()):g}, {float(high.max()):g}]{own}"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clip to the box; the clean row is inside, so no change grows."""
        return torch.maximum(torch.minimum(x_adv, self._bound(self.high, x)), self._bound(self.low, x))

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        inside = (x_adv >= self._bound(self.low, x)) & (x_adv <= self._bound(self.high, x))
        return inside.flatten(1).all(1)

    @property
    def finite(self) -> bool:
        """Whether every value has a least and a largest one."""
        return all(bool(torch.as_tensor(end).isfinite().all()) for end in (self.low, self.high))

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return lowest and highest raw values on the device of `x`."""
        return self._bound(self.low, x), self._bound(self.high, x)

    def ends(self, x_adv: Tensor, direction: Tensor) -> Tensor:
        """Return bool[N, ...]: the value is at the end of the box that `direction` (0 counts as down) leads to."""
        low, high = self.bounds(x_adv)
        return torch.where(direction > 0, x_adv >= high, x_adv <= low)

    def _bound(self, value: float | Tensor, x: Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=x.dtype, device=x.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class MutableMask:
    """Only values under the mask may change: a patch, one slice, the features an attacker can reach."""

    mask: Tensor
    text: str = "only masked values may change"
    shrinks: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return self.text

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Put back every value outside the mask."""
        return torch.where(self.mask.to(x.device), x_adv, x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        return (self.mask.to(x.device) | (x_adv == x)).flatten(1).all(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMask:
    """Only values under a mask may change, and each clean row has its own: inside the brain, along the edges.

    `find` [N, ...] -> bool[N, ...] looks at the clean rows only, each by itself.
    """

    find: Callable[[Tensor], Tensor]
    text: str
    shrinks: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return self.text

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Put back every value outside the row's mask."""
        return torch.where(self.find(x), x_adv, x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        return (self.find(x) | (x_adv == x)).flatten(1).all(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Any rule by its two functions: `fix` [N, ...] -> [N, ...] and `holds` [N, ...] -> bool[N].

    `rounds` says that `fix` rounds each value to a whole number of `step`: attacks then keep the fractions of their
    walk.
    """

    text: str
    fix: Callable[[Tensor], Tensor]
    holds: Callable[[Tensor], Tensor]
    rounds: bool = False
    step: float = 1.0
    shrinks: ClassVar[bool] = False

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return self.text

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return the rows, fixed."""
        return self.fix(x_adv)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return bool[N]."""
        return self.holds(x_adv)


@runtime_checkable
class Guiding(Protocol):
    """A rule that couples values: it says itself what of a direction can be followed."""

    def along(self, direction: Tensor) -> Tensor:
        """Return the part of `direction` [N, ...] that the rule lets a change follow."""
        ...


def followable(domain: tuple[Region, ...], x_adv: Tensor, direction: Tensor, x: Tensor | None = None) -> Tensor:
    """Return what of `direction` [N, ...] the rules let values follow: 0 outside a mask and at the end of a box.

    Masks of single rows are found in the clean x, which is x_adv where none is given. Without it, a step that spends
    its length on such values leads nowhere (an L1 step would, for ever). A band limit keeps the part below its
    frequency.
    """
    for rule in domain:
        if isinstance(rule, MutableMask):
            direction = torch.where(rule.mask.to(direction.device), direction, 0.0)
        elif isinstance(rule, RowMask):
            direction = torch.where(rule.find(x_adv if x is None else x), direction, 0.0)
        elif isinstance(rule, Box):
            direction = direction.masked_fill(rule.ends(x_adv, direction), 0.0)
        elif isinstance(rule, Guiding):
            direction = rule.along(direction)
    return direction


def ordered(low: tuple[int, ...], high: tuple[int, ...], text: str) -> Rule:
    """Return the rule that feature `high[i]` is never below feature `low[i]`; rows are [N, features].

    The nearest ordered pair to an inverted one is its mean, twice (projection onto the half-space).
    """
    below, above = list(low), list(high)

    def fix(x_adv: Tensor) -> Tensor:
        lower, upper = x_adv[:, below], x_adv[:, above]
        middle = (lower + upper) / 2
        fixed = x_adv.clone()
        fixed[:, below] = torch.where(lower > upper, middle, lower)
        fixed[:, above] = torch.where(lower > upper, middle, upper)
        return fixed

    def holds(x_adv: Tensor) -> Tensor:
        return (x_adv[:, below] <= x_adv[:, above]).all(1)

    return Rule(text=text, fix=fix, holds=holds)


def whole_numbers(text: str = "each value is a whole number") -> Rule:
    """Return the rule that every value is a whole number: counts, stored grey levels."""
    return Rule(text=text, fix=torch.round, holds=lambda x: (x == x.round()).flatten(1).all(1), rounds=True)


def whole_steps(step: float, text: str) -> Rule:
    """Return the rule that every value is a whole number of `step`, as a recorder stores it, to float32's precision."""

    def holds(x: Tensor) -> Tensor:
        steps = x / step
        return ((steps - steps.round()).abs() <= _STORED).flatten(1).all(1)

    return Rule(text=text, fix=lambda x: (x / step).round() * step, holds=holds, rounds=True, step=step)
