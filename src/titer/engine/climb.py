"""Steepest ascent with steps of one length: what fgsm, bim and pgd share, and training with them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.threat import Threat
from titer.engine.ascent import Ascent, State, ascend
from titer.engine.rows import Rows


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

    def start(rows: Rows, restart: int) -> State:
        del restart
        return {"x_adv": random_start(rows) if schedule.random_start else rows.x.clone()}

    def step(rows: Rows, state: State, seen: Evaluation, _step: int) -> State:
        ball, x_adv = rows.threat.budget, state["x_adv"]
        moved = ball.ascend(x_adv, rows.uphill(x_adv, seen.grad), schedule.step * ball.eps)
        return {"x_adv": rows.project(moved)}

    ascent = Ascent(steps=schedule.steps, start=start, step=step)
    return ascend(model, x, y, threat, ascent, rng=rng, restarts=schedule.restarts)


def random_start(rows: Rows) -> Tensor:
    """Return a draw of the threat for each row."""
    return rows.project(rows.threat.budget.sample(rows.x, rows.noise))
