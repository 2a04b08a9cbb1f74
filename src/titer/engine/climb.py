"""The engine of gradient attacks on a fixed budget: climb the goal's loss, and let won rows leave at once.

The logits of each step's forward pass say who has won, so early leaving costs nothing, and the work shrinks as the
attack succeeds. Restarts run on survivors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.threat import Threat
from titer.threats.rules import followable

EOT_DRAWS = 16
"""Draws averaged for a randomised model (expectation over transformation)."""

MICRO_BATCH = 250
"""Rows a pass: large enough for the matrix kernels, small enough for the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How to climb: `steps` of `step` budgets each, from the clean row or a random one, `restarts` times."""

    steps: int
    step: float
    random_start: bool
    restarts: int = 1


def climb(model: Model, x: Tensor, y: Tensor, threat: Threat, schedule: Schedule, *, rng: Generator) -> Tensor:
    """Return for each row of `x` [N, ...] the first iterate that won, or else the last one.

    Raises:
        Incompatible: the model gives no gradient.
    """
    best = x.clone()
    survivors = torch.arange(len(x), device=x.device)
    for restart in range(schedule.restarts):
        if not len(survivors):
            break
        last = restart == schedule.restarts - 1
        kept = []
        for rows in survivors.split(MICRO_BATCH):
            found, won = _one_start(model, x, y, rows, threat, schedule, rng=rng, verdict=not last)
            best[rows] = found
            kept.append(rows[~won])
        survivors = torch.cat(kept)
    return best


def _one_start(
    model: Model,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    threat: Threat,
    schedule: Schedule,
    *,
    rng: Generator,
    verdict: bool,
) -> tuple[Tensor, Tensor]:
    """Climb once from one start; return the found rows and bool[n], which of them won.

    Without `verdict` the last iterate is not looked at: the judge will.
    """
    clean, labels = x[rows], y[rows]
    found = threat.project(threat.budget.sample(clean, rng), clean) if schedule.random_start else clean.clone()
    won = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
    live = torch.arange(len(rows), device=x.device)
    step = schedule.step * threat.budget.eps
    x_adv = found.clone()
    for _ in range(schedule.steps):
        model.attend(rows[live])
        target = labels[live]
        loss = partial(_loss, threat, target)
        logits, grad = model.evaluate(loss, x_adv, draws=EOT_DRAWS, rng=rng)
        hit = threat.goal.won(logits, target)
        if bool(hit.any()):
            found[live[hit]], won[live[hit]] = x_adv[hit], True
            live, x_adv, grad = live[~hit], x_adv[~hit], grad[~hit]
            if not len(live):
                return found, won
        grad = followable(threat.domain, x_adv, grad)
        x_adv = threat.project(threat.budget.ascend(x_adv, grad, step), clean[live])
    found[live] = x_adv
    if verdict:
        model.attend(rows[live])
        won[live] = threat.goal.won(_logits(model, x_adv, rng), labels[live])
    return found, won


def _loss(threat: Threat, y: Tensor, logits: Tensor) -> Tensor:
    return threat.goal.loss(logits, y)


def _logits(model: Model, x: Tensor, rng: Generator) -> Tensor:
    with torch.no_grad():
        return model.logits(x) if model.draw is None else model.draw(rng)(x)
