"""What is measured of every library in the same way: passes, queries of each row, CPU seconds, and the bound.

Runs in the peers' environment too, so it needs torch and NumPy only.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

TIMED_PASSES = 5
MOST_QUERIES = 20_000
"""A row attacked alone is given up here: one peer searches for ever where rounding hides the boundary."""


class OutOfQueriesError(ValueError):
    """A row attacked alone has used up its queries."""


class Counted(nn.Module):
    """A network whose forward and backward passes are counted in samples, and nothing else changed.

    With `owners`, each forward pass is also attributed to a clean row: to `only`, where the attack was given one row,
    in order where a batch holds every row, and else to the nearest clean row. The time that this counting takes is
    kept in `spent`, to be taken off the attack's.
    """

    def __init__(self, net: nn.Module, clean: Tensor, *, owners: bool) -> None:
        super().__init__()
        self.net = net
        self.forwards = 0
        self.backwards = 0
        self.spent = 0.0
        self.only: int | None = None
        self.queries = torch.zeros(len(clean), dtype=torch.float64)
        self._clean = clean.flatten(1) if owners else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [N, K]."""
        began = time.process_time()
        self.forwards += len(x)
        if self._clean is not None:
            ones = torch.ones(len(x), dtype=torch.float64)
            self.queries.index_add_(0, self._owners(x.detach(), self._clean), ones)
        if self.only is not None and self.queries[self.only] > MOST_QUERIES:
            raise OutOfQueriesError(f"more than {MOST_QUERIES} queries")
        self.spent += time.process_time() - began
        logits: Tensor = self.net(x)
        if logits.requires_grad:
            logits.register_hook(self._backward)
        return logits

    def _backward(self, grad: Tensor) -> None:
        self.backwards += len(grad)

    def _owners(self, x: Tensor, clean: Tensor) -> Tensor:
        if self.only is not None:
            return torch.full((len(x),), self.only)
        if len(x) == len(clean):
            return torch.arange(len(x))
        return torch.cdist(x.flatten(1).to(clean), clean).argmin(1)


def warm_up() -> None:
    """Have torch load what it loads at first use (seconds, for an optimiser), so that no attack is charged with it."""
    weight = torch.zeros(1, requires_grad=True)
    for optimiser in (torch.optim.Adam([weight]), torch.optim.SGD([weight], lr=0.1)):
        weight.square().sum().backward()
        optimiser.step()
    torch.cdist(torch.zeros(2, 2), torch.zeros(2, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """CPU seconds of one pass over the whole batch: `forward` alone, and `both`, forward with the input's gradient."""

    forward: float
    both: float


def pass_cost(net: nn.Module, x: Tensor, y: Tensor) -> PassCost:
    """Return what one plain float32 pass over x [N, ...] costs: weights frozen, whole batch at once, median of 5."""
    frozen = copy.deepcopy(net).eval().requires_grad_(requires_grad=False)
    loss = nn.CrossEntropyLoss(reduction="sum")

    def forward() -> None:
        with torch.no_grad():
            frozen(x)

    def both() -> None:
        leaf = x.detach().clone().requires_grad_()
        torch.autograd.grad(loss(frozen(leaf), y), leaf)

    return PassCost(forward=_seconds(forward), both=_seconds(both))


def _seconds(run: object) -> float:
    assert callable(run)
    run()
    spent = []
    for _ in range(TIMED_PASSES):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return median(spent)


def mean_cost(before: PassCost, after: PassCost) -> PassCost:
    """Return the mean of what was timed before and after an attack."""
    return PassCost(forward=(before.forward + after.forward) / 2, both=(before.both + after.both) / 2)
