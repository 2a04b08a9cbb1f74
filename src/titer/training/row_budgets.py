"""The attack of a training in which each row has a budget of its own, a share of the threat's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.noise import Noise
from titer.core.threat import Logits, Threat
from titer.threats.balls import per_row
from titer.threats.rounding import relaxed, settled


@dataclass(frozen=True, slots=True, kw_only=True)
class RowClimb:
    """Projected gradient ascent: `steps` of `step` budgets each, from a random start (Madry et al. 2018, eq. 2.1)."""

    steps: int
    step: float

    def __call__(
        self, logits: Logits, x: Tensor, y: Tensor, threat: Threat, shares: Tensor, *, rng: Generator
    ) -> Tensor:
        """Return the last iterate for each row of x [N, ...], inside `shares` float[N] (0 to 1) of the threat's ball.

        A ball of a norm, shrunk around the clean row, is the ball of a share of its radius: a row is projected where
        its change is stretched to the whole budget, and shrunk back.
        """
        share, walk = per_row(shares.to(x), x), relaxed(threat)
        noise = Noise(int(torch.randint(2**62, (1,), generator=rng)), torch.arange(len(x), device=x.device))
        x_adv = _inside(walk, x + share * (threat.budget.sample(x, noise) - x), x, share)
        for _ in range(self.steps):
            seen = settled(threat, x_adv, x, free=True).detach().requires_grad_()
            grad = torch.autograd.grad(threat.goal.loss(logits(seen), y).sum(), seen)[0]
            moved = threat.budget.ascend(x_adv, grad, self.step * threat.budget.eps * share)
            x_adv = _inside(walk, moved, x, share)
        return settled(threat, x_adv, x, free=True).detach()


def _inside(threat: Threat, x_adv: Tensor, x: Tensor, share: Tensor) -> Tensor:
    wide = torch.where(share > 0, x + (x_adv - x) / share.clamp_min(1e-12), x)
    held = x + share * (threat.budget.project(wide, x) - x)
    return settled(threat, held, x, free=True)
