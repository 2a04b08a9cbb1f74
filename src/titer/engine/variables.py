"""What an unconstrained optimiser moves in the input's place, so that the box holds by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from titer.engine.rows import Rows
from titer.threats.balls import to_units
from titer.threats.room import box

_EDGE = 0.999999
_WIDEST = 1e3


class Variable(Protocol):
    """A change of variable for rows [n, ...]."""

    def start(self) -> Tensor:
        """Return the variable at the clean rows."""
        ...

    def slope(self, variable: Tensor) -> Tensor:
        """Return the derivative of the input by the variable, value by value."""
        ...

    def settle(self, variable: Tensor) -> tuple[Tensor, Tensor]:
        """Return the variable and the input it stands for, inside the domain."""
        ...


@dataclass(frozen=True, slots=True)
class Tanh:
    """x + half (tanh w - place), which no w leads out of the box (Carlini and Wagner 2017, section V.B).

    A clean value at the end of the box has no finite w: it is given one near by, and x makes up for the difference.
    """

    rows: Rows
    half: Tensor
    place: Tensor

    def start(self) -> Tensor:
        """Return w of the clean rows."""
        return self.place.atanh()

    def slope(self, variable: Tensor) -> Tensor:
        """Return half (1 - tanh^2 w)."""
        bent = variable.tanh()
        return self.half * (1 - bent * bent)

    def settle(self, variable: Tensor) -> tuple[Tensor, Tensor]:
        """Return w and x."""
        return variable, self.rows.inside(self.rows.x + self.half * (variable.tanh() - self.place))


@dataclass(frozen=True, slots=True)
class Projected:
    """The change in units, projected after each step: for endless boxes, and for rules that couple values."""

    rows: Rows
    scale: Tensor

    def start(self) -> Tensor:
        """Return no change."""
        return torch.zeros_like(self.rows.x)

    def slope(self, variable: Tensor) -> Tensor:
        """Return the raw size of one unit."""
        return self.scale.expand_as(variable)

    def settle(self, variable: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the rules leave of the change."""
        x_adv = self.rows.inside(self.rows.x + variable * self.scale)
        return to_units(x_adv - self.rows.x, self.scale), x_adv


def variable_of(rows: Rows) -> Variable:
    """Return the tanh of a finite box, and the projected change where there is none.

    A box a thousand times wider than the budget is none either: float32 has no tanh that fine.
    """
    limits, ball = box(rows.threat, rows.x), rows.threat.budget
    scale = ball.scaled(rows.x)
    if limits is None or bool((to_units(limits[1] - limits[0], scale) > _WIDEST * ball.eps).any()):
        return Projected(rows, scale)
    half = (limits[1] - limits[0]) / 2
    place = (rows.x - limits[0]) / half.clamp_min(1e-30) - 1
    return Tanh(rows, half, place.clamp(-_EDGE, _EDGE))
