"""What a threat lets a network be given: a box around each row, and a norm ball inside it, in the network's own values.

A proof needs to know where raw values go before the first layer. It is measured, not assumed: the preprocessing must
multiply each value by a number of its own and move it by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from titer.core.errors import Incompatible
from titer.core.threat import Logits, Threat

_AGREEMENT = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Lowest and highest values [N, ...]."""

    low: Tensor
    high: Tensor

    @property
    def middle(self) -> Tensor:
        """Half way between."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.high - self.low) / 2

    def take(self, rows: Tensor | slice) -> Interval:
        """Return these rows."""
        return Interval(low=self.low[rows], high=self.high[rows])

    def within(self, other: Interval) -> Interval:
        """Return what both allow."""
        return Interval(low=self.low.maximum(other.low), high=self.high.minimum(other.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The inputs of the network that a threat allows around rows: `box`, and in l2 and l1 a ball around `center`.

    `size` [N, ...] is the radius along each value, in the network's own.
    """

    center: Tensor
    box: Interval
    norm: str
    size: Tensor

    def __len__(self) -> int:
        return len(self.center)

    def take(self, rows: Tensor | slice) -> Around:
        """Return these rows."""
        return Around(center=self.center[rows], box=self.box.take(rows), norm=self.norm, size=self.size[rows])

    def lowest(self, slope: Tensor) -> Tensor:
        """Return the least value float[N, m] of slopes [N, m, ...] times an input: Hölder's inequality, and the box."""
        flat = slope.flatten(2)
        middle, radius = (part.flatten(1).unsqueeze(-1) for part in (self.box.middle, self.box.radius))
        least = (flat @ middle - flat.abs() @ radius).squeeze(-1)
        if self.norm not in _DUAL:
            return least
        steps = flat * self.size.flatten(1).unsqueeze(1)
        reach: Tensor = torch.linalg.vector_norm(steps, ord=_DUAL[self.norm], dim=2)
        return least.maximum((flat @ self.center.flatten(1).unsqueeze(-1)).squeeze(-1) - reach)


_DUAL = {"l2": 2.0, "l1": float("inf")}


def around(rebuild: Callable[[nn.Module], Logits], x: Tensor, threat: Threat, eps: Tensor) -> Around:
    """Return what the network is given around rows `x` [N, ...], each with its own budget eps float[N].

    Values that a rule masks stay where they are. In l0 the box is all that the domain allows. Other rules are left out:
    they only take inputs away.

    Raises:
        Incompatible: the preprocessing does more than scale and move each value.
    """
    units = threat.budget.scaled(x) * _free(threat, x)
    size = eps.view(-1, *[1] * (x.dim() - 1)) * units
    reach = torch.where(units > 0, torch.inf, 0.0).expand_as(x) if threat.budget.norm == "l0" else size.expand_as(x)
    low, high = x - reach, x + reach
    bounds = threat.bounds(x)
    if bounds is not None:
        low, high = low.maximum(bounds[0]).minimum(x), high.minimum(bounds[1]).maximum(x)
    seen = seen_by(rebuild, x)
    ends = seen_by(rebuild, low), seen_by(rebuild, high)
    moved = (seen_by(rebuild, x + size) - seen).abs()
    return Around(
        center=seen,
        box=Interval(low=ends[0].minimum(ends[1]), high=ends[0].maximum(ends[1])),
        norm=threat.budget.norm,
        size=moved.expand_as(seen),
    )


def check_preprocessing(rebuild: Callable[[nn.Module], Logits], x: Tensor) -> None:
    """Refuse a preprocessing that does anything but scale and move each value, tried on the first row of `x`."""
    row = x[:1].detach()
    # Shares that differ from value to value: what mixes values, or bends them, shows.
    share = (torch.arange(row.numel(), device=row.device).to(row) * 0.618034).frac().view_as(row)
    step = torch.ones_like(row) * row.abs().amax().clamp_min(1.0)
    seen = [seen_by(rebuild, row + step * part) for part in (torch.zeros_like(row), share, torch.ones_like(row))]
    if any(one.numel() != row.numel() for one in seen):
        raise Incompatible(f"the preprocessing makes {seen[0].numel()} values of {row.numel()}, and cannot be bounded")
    share = share.view_as(seen[0])
    expected = seen[0] + share * (seen[2] - seen[0])
    if not torch.allclose(seen[1], expected, atol=_AGREEMENT * (1 + float(seen[2].abs().max())), rtol=0.0):
        raise Incompatible("the preprocessing does more than scale and move each value, and cannot be bounded")


def _free(threat: Threat, x: Tensor) -> Tensor:
    """Return 1 where a value may change, and 0 outside a mask."""
    free = torch.ones_like(x[:1])
    for rule in threat.domain:
        mask = getattr(rule, "mask", None)
        if isinstance(mask, Tensor):
            free = free * mask.to(free)
    return free


class _Capture(nn.Module):
    """Keeps what it is given."""

    input: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.input = x.detach()
        return x.flatten(1)[:, :1]


def seen_by(rebuild: Callable[[nn.Module], Logits], x: Tensor) -> Tensor:
    """Return what the network of a model is given for `x`."""
    seen = _Capture()
    rebuild(seen)(x)
    return seen.input
