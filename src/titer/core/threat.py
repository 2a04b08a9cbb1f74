"""What an attacker may do: a budget, the rules of the domain, a goal, and what of the model can be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from titer.core.noise import Noise

Access = Literal["gradient", "scores", "decision"]
Logits = Callable[["Tensor"], "Tensor"]
RANK: dict[Access, int] = {"decision": 0, "scores": 1, "gradient": 2}

_ROUNDS = 20
_PULLS = (0.999, 0.998, 0.996, 0.992, 0.984, 0.968, 0.936, 0.872, 0.744, 0.488, 0.238, 0.1)
"""Shares of a change that is pulled towards the clean row: close together at first, as most need little."""


@runtime_checkable
class Region(Protocol):
    """A set of allowed inputs around a clean one."""

    shrinks: ClassVar[bool]
    """True where `project` only moves single coordinates towards the clean row: it can never leave a ball."""

    def describe(self) -> str:
        """Return the rule as a sentence for the report."""
        ...

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest allowed input to each row of `x_adv`; both are [N, ...]."""
        ...

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N], the final word on whether each row is allowed."""
        ...


Bounds = tuple["Tensor", "Tensor"]


@runtime_checkable
class Boxed(Protocol):
    """A rule that is a box: every value in its own limits."""

    def bounds(self, x: Tensor) -> Bounds:
        """Return lowest and highest raw values on the device of `x`; either may be infinite."""
        ...


@runtime_checkable
class Estimated(Region, Protocol):
    """A rule whose limits are estimated from data: each trial fits it on its own training part."""

    def fitted(self, train: Tensor) -> Region:
        """Return the rule estimated from raw training inputs [M, ...]."""
        ...


@runtime_checkable
class Ball(Region, Protocol):
    """A perturbation budget that a gradient can climb in: a norm ball of radius `eps` in `unit`."""

    @property
    def norm(self) -> str:
        """`linf`, `l2`, `l1` or `l0`."""
        ...

    @property
    def eps(self) -> float:
        """Radius, in `unit`."""
        ...

    @property
    def unit(self) -> str:
        """What eps counts: `/255`, `sd`, `grey level` ..."""
        ...

    def at(self, eps: float) -> Ball:
        """Return the same ball with another radius."""
        ...

    def project(self, x_adv: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        """Return the nearest input of the ball; where one projection can, in the box of `bounds` as well."""
        ...

    @property
    def scale(self) -> Tensor:
        """Raw size of one unit: one number, or one a value."""
        ...

    def scaled(self, x: Tensor) -> Tensor:
        """Return `scale` on the device and in the type of `x`, broadcastable against it."""
        ...

    def ascend(self, x_adv: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        """Step by `step` (in `unit`; one number, or one a row) in the norm's steepest direction along `grad`."""
        ...

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """Return random inputs of the ball around `x`."""
        ...


class Goal(Protocol):
    """What the attacker wants of the logits [N, K] for true labels y [N]; both in the form of the model's output."""

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return float[N]: the larger, the nearer the goal."""
        ...

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return float[N]: above 0 where the goal is reached, and by how much; what least-perturbation attacks need."""
        ...

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N]: the goal is reached."""
        ...

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: rows on which the goal makes sense; no finding can be hidden where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Threat:
    """One threat model: inputs that keep `budget` and every rule of `domain`, towards `goal`, seeing `access`."""

    family: str
    budget: Ball
    domain: tuple[Region, ...]
    goal: Goal
    access: Access = "gradient"

    @property
    def name(self) -> str:
        """Family with budget, as tables show it: `linf 8/255`, `l2 0.5 range`."""
        unit = self.budget.unit
        return f"{self.family} {self.budget.eps:g}{'' if unit.startswith('/') else ' '}{unit}"

    @property
    def masked(self) -> bool:
        """Whether a rule leaves only a part of the input open to change."""
        return any(getattr(rule, "mask", None) is not None for rule in self.domain)

    @property
    def worded(self) -> bool:
        """Whether a rule says what each word of a note may become."""
        return any(callable(getattr(rule, "of", None)) for rule in self.domain)

    @property
    def ended(self) -> bool:
        """Whether the domain gives every value a least and a largest one."""
        return any(getattr(rule, "finite", False) for rule in self.domain)

    def at(self, eps: float) -> Threat:
        """Return the same threat with another budget."""
        return replace(self, budget=self.budget.at(eps))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return an input inside budget and domain, near `x_adv`.

        Alternating projections (von Neumann 1933; exact after one pass where every rule only shrinks the change). What
        still breaks a rule is pulled towards the clean row, which keeps every convex rule; the harness judges the rest.
        """
        projected = self._pass(x_adv, x)
        if all(rule.shrinks for rule in self.domain):
            return projected
        outside = (~self.contains(projected, x)).nonzero().flatten()
        for _ in range(_ROUNDS):
            if not len(outside):
                return projected
            again = self._pass(projected[outside], x[outside])
            projected = projected.index_copy(0, outside, again)
            outside = outside[~self.contains(again, x[outside])]
        return projected.index_copy(0, outside, self._pull(projected[outside], x[outside]))

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]: inside the budget and every rule, and finite."""
        inside = self.budget.contains(x_adv, x) & self.allowed(x_adv, x)
        return inside & x_adv.flatten(1).isfinite().all(1)

    def allowed(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]: inside every rule of the domain, whatever the budget."""
        inside = x_adv.flatten(1).isfinite().all(1)
        for rule in self.domain:
            inside = inside & rule.contains(x_adv, x)
        return inside

    def bounds(self, x: Tensor) -> Bounds | None:
        """Return the box of the domain, lowest and highest raw values, or None where there is none."""
        boxes = [rule.bounds(x) for rule in self.domain if isinstance(rule, Boxed)]
        if not boxes:
            return None
        return reduce(lambda a, b: (a[0].maximum(b[0]), a[1].minimum(b[1])), boxes)

    def _pass(self, x_adv: Tensor, x: Tensor) -> Tensor:
        x_adv = self.budget.project(x_adv, x, self.bounds(x))
        for rule in self.domain:
            x_adv = rule.project(x_adv, x)
        return x_adv

    def _pull(self, x_adv: Tensor, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 1))
        pulled = x_adv
        for pull in _PULLS:
            outside = ~self.contains(pulled, x)
            if not bool(outside.any()):
                break
            shorter = x + (x_adv - x) * pull
            for rule in self.domain:  # whole numbers are kept by no pull, but by rounding after it
                shorter = rule.project(shorter, x)
            pulled = shorter.where(outside.view(shape), pulled)
        return pulled
