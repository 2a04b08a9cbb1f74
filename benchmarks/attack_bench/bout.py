"""What a peer's attack is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attack_bench.measure import Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Bout:
    """A network of inputs x [N, C, H, W] in [0, 1] with labels y int64[N]; `eps` in the same unit, None without budget.

    The network's weights ask for gradients, as those of the peer's usual user do.
    """

    net: Counted
    x: Tensor
    y: Tensor
    eps: float | None
    classes: int

    @property
    def budget(self) -> float:
        """The eps of a job that has one."""
        assert self.eps is not None
        return self.eps

    def row_by_row(self, attack: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Attack one row after the other, as the library itself would, so that each row's queries are known.

        A row for which the library finds no beginning stays as it is.
        """
        parts = []
        for row in range(len(self.x)):
            self.net.only = row
            x, y = self.x[row : row + 1], self.y[row : row + 1]
            try:
                parts.append(attack(x, y))
            except (AssertionError, ValueError):
                parts.append(x)
        self.net.only = None
        return torch.cat(parts)
