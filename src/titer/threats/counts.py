"""Rules of count matrices: reads are whole and never below 0, and a library keeps its size.

A sequencer hands out a given number of reads: what one gene gains, others lose. A change that raises the total says
that more was sequenced than was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from titer.core.threat import Region
from titer.threats.rules import Box

_ROUNDS = 12
_NEAR = 1e-6


def _totals(x: Tensor) -> Tensor:
    """Return float64[N]: libraries of more than 2^24 reads are no exact float32."""
    return x.flatten(1).double().sum(1)


def _shifted(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return float64[N, D]: the nearest counts of x's total, not below 0, that move no more values than x_adv does.

    The projection onto the simplex by dropping what would fall below 0 (Michelot 1986, 10.1007/BF00938486).
    """
    moved, wanted = x_adv.flatten(1).double().clamp_min(0.0), _totals(x)
    free = (x_adv != x).flatten(1)
    for _ in range(_ROUNDS):
        excess = (moved.sum(1) - wanted).unsqueeze(1)
        moved = torch.where(free, moved - excess / free.sum(1, keepdim=True).clamp_min(1), moved)
        below = moved < 0
        if not bool(below.any()):
            break
        moved = moved.clamp_min(0.0)
        free = free & ~below
    return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySize:
    """Every sample keeps its total; what has to give is shared by the values that were changed."""

    shrinks: ClassVar[bool] = False

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return "each sample keeps its library size"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the nearest input of the same total that changes no further value."""
        return _shifted(x_adv, x).view_as(x).to(x.dtype)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]: the totals agree to the rounding of float32."""
        total = _totals(x)
        return (_totals(x_adv) - total).abs() <= _NEAR * total.abs() + 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeLibrary:
    """Counts are whole and keep their total exactly: what rounding leaves over goes to the largest remainders."""

    shrinks: ClassVar[bool] = False
    rounds: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return "each value is a whole count, and each sample keeps its library size exactly"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the counts rounded by largest remainders (Hamilton's method), among the changed values alone."""
        real = _shifted(x_adv, x)
        whole = real.floor()
        free = (x_adv != x).flatten(1)
        left = (_totals(x) - whole.sum(1)).round().clamp_min(0).long()
        rest = torch.where(free, real - whole, -1.0)
        rank = rest.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
        given = (rank < left.unsqueeze(1)) & free
        return (whole + given).view_as(x).to(x.dtype)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        whole = (x_adv == x_adv.round()).flatten(1).all(1)
        return whole & (_totals(x_adv) == _totals(x))


def count_rules() -> tuple[Region, ...]:
    """Return the rules of a count matrix, in the order that projections take them."""
    return (Box(low=0.0, high=float("inf"), text="no count is below 0"), LibrarySize(), WholeLibrary())
