"""Momentum iterative method: small steps along an average of the gradients so far."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import Ascent, State, ascend
from titer.engine.rows import Rows

_SMALLEST = 1e-30


@attack(
    "mim",
    paper="Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, arXiv:1710.06081, algorithm 1, eq. 6 and 7",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
)
def mim(*, steps: Count = 10, step: Positive = 0.2, decay: Annotated[float, Field(ge=0, le=1)] = 1.0) -> Attack:
    """Momentum iterative method.

    Args:
        steps: gradient steps from the clean row.
        step: length of one step, as a share of the budget.
        decay: how much of the earlier gradients is kept; 0 is the basic iterative method.
    """

    def start(rows: Rows, restart: int) -> State:
        del restart
        return {"x_adv": rows.x.clone(), "momentum": rows.x.new_zeros(rows.x.shape)}

    def forward(rows: Rows, state: State, seen: Evaluation, _step: int) -> State:
        ball, x_adv = rows.threat.budget, state["x_adv"]
        length = seen.grad.flatten(1).abs().sum(1).clamp_min(_SMALLEST)
        momentum = decay * state["momentum"] + seen.grad / rows.per_row(length)
        moved = ball.ascend(x_adv, rows.uphill(x_adv, momentum), step * ball.eps)
        return {"x_adv": rows.project(moved), "momentum": momentum}

    ascent = Ascent(steps=steps, start=start, step=forward)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return ascend(model, x, y, threat, ascent, rng=rng)

    return run
