"""Which eps to attack a model at: one where it keeps about half of its rows, found by a PGD that is no library's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = (0.25, 0.5, 0.75, *range(1, 25))
"""Budgets tried, in 255ths of the range."""

AIM = 0.45
"""The middle of 30 to 60 % right under attack."""


def middle_budget(net: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the eps of EPS at which the share right under PGD-20 is nearest to AIM, and that share; by bisection."""
    low, high = 0, len(EPS) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if kept_under_pgd(net, x, y, EPS[middle]) > AIM else (low, middle)
    kept = {float(eps): kept_under_pgd(net, x, y, eps) for eps in (EPS[low], EPS[high])}
    best = min(kept, key=lambda eps: abs(kept[eps] - AIM))
    return best, kept[best]


def kept_under_pgd(net: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int = 20) -> float:
    """Return the share of rows x [N, ...] in [0, 1] that stay right, clean and at every step, within eps / 255."""
    budget, rng = eps / 255, torch.Generator().manual_seed(0)
    x_adv = (x + budget * (2 * torch.rand(x.shape, generator=rng) - 1)).clamp(0, 1)
    with torch.no_grad():
        right = net(x).argmax(1) == y
    for _ in range(steps):
        leaf = x_adv.detach().requires_grad_()
        logits = net(leaf)
        right = right & (logits.argmax(1) == y)
        grad = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), leaf)[0]
        x_adv = (x + (x_adv + budget / 8 * grad.sign() - x).clamp(-budget, budget)).clamp(0, 1)
    with torch.no_grad():
        right = right & (net(x_adv).argmax(1) == y)
    return float(right.float().mean())
