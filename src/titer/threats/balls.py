"""Norm balls as perturbation budgets, with exact projections, in any unit.

All sizes are measured on `(x_adv - x) / scale`, where `scale` is the raw size of one unit: a number, or one number a
feature (its standard deviation, say). A feature whose scale is 0 never varies in the data and may not be changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from titer.core.errors import Incompatible, SpecError, unknown
from titer.core.noise import Noise
from titer.threats.l1 import l1_projection
from titer.threats.words import SHARE, ShareOfWords

_ROUNDING = 4 * torch.finfo(torch.float32).eps
_SLACK = 1e-5
_L1_SHARE = 0.01

Bounds = tuple[Tensor, Tensor]
"""The box around the inputs, in raw values: lowest and highest, broadcastable against them."""


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Return float[N] shaped to multiply rows of `like` [N, ...]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def to_units(delta: Tensor, scale: Tensor) -> Tensor:
    """Return a change in units; 0 where the scale is 0."""
    if bool((scale > 0).all()):
        return delta / scale
    return torch.where(scale > 0, delta / torch.where(scale > 0, scale, 1.0), 0.0)


def size(norm: str, x_adv: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Return float[N], the norm of each row's change in units."""
    return _length(norm, to_units(x_adv - x, scale))


def sizes(x_adv: Tensor, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """Return float[N] for each norm's name: the change in units, measured once."""
    units = to_units(x_adv - x, scale)
    return {norm: _length(norm, units) for norm in _ORDERS}


def _length(norm: str, rows: Tensor) -> Tensor:
    """Return float[N], the norm of each row of [N, ...]."""
    length: Tensor = torch.linalg.vector_norm(rows.flatten(1), ord=_ORDERS[norm], dim=1)
    return length


_ORDERS = {"linf": float("inf"), "l2": 2.0, "l1": 1.0, "l0": 0.0}


def _contains(norm: str, eps: float, x_adv: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Return bool[N], with no more slack than the rounding of float32 sums explains."""
    length, limit = size(norm, x_adv, x, scale), eps * (1 + _SLACK)
    inside = length <= limit
    if not bool(inside.all()):
        inside = length <= limit + _length(norm, to_units(torch.maximum(x.abs(), x_adv.abs()) * _ROUNDING, scale))
    if bool((scale > 0).all()):
        return inside
    return inside & ((x_adv == x) | (scale > 0)).flatten(1).all(1)


def peaked(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row over its largest entry, and float[N], those entries: squares of small ones would be 0."""
    peak = rows.flatten(1).abs().amax(1)
    peak = torch.where(peak > 0, peak, 1.0)
    return rows / per_row(peak, rows), peak


def _uniform(x: Tensor, noise: Noise) -> Tensor:
    return noise.uniform(*x.shape[1:]).to(x)


def _radius(x: Tensor, noise: Noise) -> Tensor:
    """Return float[N]: radii that make directions on the sphere uniform in the unit ball."""
    return noise.uniform().to(x) ** (1.0 / x.shape[1:].numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class Linf:
    """Every value changes by at most eps units."""

    eps: float
    scale: Tensor
    unit: str
    norm: ClassVar[str] = "linf"
    shrinks: ClassVar[bool] = True

    def at(self, eps: float) -> Linf:
        """Return the ball of another radius."""
        return replace(self, eps=eps)

    def scaled(self, x: Tensor) -> Tensor:
        """Return the raw size of one unit on the device of `x`."""
        return self.scale.to(x)

    def describe(self) -> str:
        """Return the budget as a sentence."""
        return f"each value changes by at most {self.eps:g} {self.unit}"

    def project(self, x_adv: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:  # noqa: ARG002
        """Clip every change to eps units."""
        limit = self.eps * self.scaled(x)
        return torch.maximum(torch.minimum(x_adv, x + limit), x - limit)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        return _contains(self.norm, self.eps, x_adv, x, self.scaled(x))

    def ascend(self, x_adv: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        """Step by `step` units along the sign of the gradient."""
        return grad.sign().mul_(step * self.scaled(x_adv)).add_(x_adv)  # in place: memory costs more than arithmetic

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """Return uniform draws of the ball."""
        return x + (2 * _uniform(x, noise) - 1) * (self.eps * self.scaled(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class L2:
    """The root of the sum of squared changes is at most eps units."""

    eps: float
    scale: Tensor
    unit: str
    norm: ClassVar[str] = "l2"
    shrinks: ClassVar[bool] = True

    def at(self, eps: float) -> L2:
        """Return the ball of another radius."""
        return replace(self, eps=eps)

    def scaled(self, x: Tensor) -> Tensor:
        """Return the raw size of one unit on the device of `x`."""
        return self.scale.to(x)

    def describe(self) -> str:
        """Return the budget as a sentence."""
        return f"the changes' Euclidean norm is at most {self.eps:g} {self.unit}"

    def project(self, x_adv: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:  # noqa: ARG002
        """Shorten every change that is longer than eps units."""
        scale = self.scaled(x)
        length = size(self.norm, x_adv, x, scale)
        factor = per_row((self.eps / length.clamp_min(1e-30)).clamp_max(1.0), x)
        return torch.where(scale > 0, x + (x_adv - x) * factor, x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        return _contains(self.norm, self.eps, x_adv, x, self.scaled(x))

    def ascend(self, x_adv: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        """Step by `step` units along the gradient's direction (in units)."""
        scale = self.scaled(x_adv)
        direction, _ = peaked(grad * scale)
        return x_adv + step * scale * direction / per_row(_length(self.norm, direction).clamp_min(1.0), direction)

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """Return uniform draws of the ball."""
        normal = noise.normal(*x.shape[1:]).to(x)
        length = torch.linalg.vector_norm(normal.flatten(1), dim=1)
        return x + self.eps * self.scaled(x) * normal * per_row(_radius(x, noise) / length, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class L1:
    """The sum of absolute changes is at most eps units."""

    eps: float
    scale: Tensor
    unit: str
    norm: ClassVar[str] = "l1"
    shrinks: ClassVar[bool] = True

    def at(self, eps: float) -> L1:
        """Return the ball of another radius."""
        return replace(self, eps=eps)

    def scaled(self, x: Tensor) -> Tensor:
        """Return the raw size of one unit on the device of `x`."""
        return self.scale.to(x)

    def describe(self) -> str:
        """Return the budget as a sentence."""
        return f"the changes' absolute sum is at most {self.eps:g} {self.unit}"

    def project(self, x_adv: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:
        """Return the nearest point of the ball, in the box of `bounds` where there is one."""
        scale = self.scaled(x)
        low, high = (torch.tensor(-torch.inf), torch.tensor(torch.inf)) if bounds is None else bounds
        change = to_units(x_adv - x, scale)
        room = to_units(torch.where(change >= 0, high - x, x - low), scale).abs()
        shrunk = l1_projection(change.flatten(1), room.expand_as(change).flatten(1), self.eps)
        return x + shrunk.view_as(x) * scale

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        return _contains(self.norm, self.eps, x_adv, x, self.scaled(x))

    def ascend(self, x_adv: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:
        """Spread `step` units over the 1 % of values with the largest gradient (SLIDE, Tramer and Boneh 2019, eq. 7).

        The norm's own steepest direction changes one value a step, which is far too slow for images.
        """
        inner = (grad * self.scaled(x_adv)).flatten(1)
        count = max(1, int(_L1_SHARE * inner.shape[1]))
        top = inner.abs().topk(count, dim=1).indices
        direction = torch.zeros_like(inner).scatter(1, top, inner.gather(1, top).sign() / count)
        return x_adv + step * self.scaled(x_adv) * direction.view_as(x_adv)

    def sample(self, x: Tensor, noise: Noise) -> Tensor:
        """Return uniform draws of the ball: signed exponentials on the sphere, radius by dimension."""
        magnitude = -torch.log1p(-noise.uniform(*x.shape[1:])).to(x)
        direction = magnitude * (_uniform(x, noise) - 0.5).sign()
        length = magnitude.flatten(1).sum(1).clamp_min(1e-30)
        return x + self.eps * self.scaled(x) * direction * per_row(_radius(x, noise) / length, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class L0:
    """At most eps values change, each by as much as the domain allows; `scale` only says which values may."""

    eps: float
    scale: Tensor
    unit: str
    norm: ClassVar[str] = "l0"
    shrinks: ClassVar[bool] = True

    def at(self, eps: float) -> L0:
        """Return the ball of another radius."""
        return replace(self, eps=eps)

    def scaled(self, x: Tensor) -> Tensor:
        """Return the raw size of one unit on the device of `x`."""
        return self.scale.to(x)

    def describe(self) -> str:
        """Return the budget as a sentence."""
        return f"at most {self.eps:g} {self.unit} change"

    def project(self, x_adv: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:  # noqa: ARG002
        """Keep the eps largest changes, in units, of each row."""
        flat = to_units(x_adv - x, self.scaled(x)).flatten(1).abs()
        count = min(int(self.eps), flat.shape[1])
        kept = torch.zeros_like(flat, dtype=torch.bool).scatter(1, flat.topk(count, dim=1).indices, value=True)
        return torch.where((kept & (flat > 0)).view_as(x), x_adv, x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]; a number of values is counted, not rounded."""
        changed = (x_adv != x).flatten(1)
        inside = changed.sum(1) <= self.eps
        scale = self.scaled(x)
        return inside & ((x_adv == x) | (scale > 0)).flatten(1).all(1)

    def ascend(self, x_adv: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:  # noqa: ARG002
        """Refuse: a number of values is no length to step by."""
        raise Incompatible("no gradient step has a length in l0: jsma and fmn search there")

    def sample(self, x: Tensor, noise: Noise) -> Tensor:  # noqa: ARG002
        """Refuse, as `ascend` does."""
        raise Incompatible("an l0 ball has no uniform draw: jsma and fmn search there")


BALLS: dict[str, type[Linf] | type[L2] | type[L1] | type[L0]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def ball(norm: str, eps: float, scale: Tensor, unit: str, where: str = "threat") -> Linf | L2 | L1 | L0 | ShareOfWords:
    """Return the ball of a norm; SpecError for an unknown norm or a radius that is not positive and finite."""
    if norm not in BALLS:
        raise unknown(f"{where}.norm", norm, BALLS)
    if not (eps > 0 and eps < float("inf")):
        raise SpecError(f"{where}.eps = {eps!r} is not allowed: a budget is a positive, finite number of {unit!r}")
    if norm == "l0" and unit == SHARE:
        return ShareOfWords(eps=float(eps), scale=scale)
    return BALLS[norm](eps=float(eps), scale=scale, unit=unit)
