"""NES: projected gradient steps along a gradient that scores at random neighbours give away."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.estimates import POOL, Blind, Slope, affordable, blind, pool_size, slices, value_budget
from titer.engine.rows import Rows


@attack(
    "nes",
    paper="Ilyas, Engstrom, Athalye, Lin 2018, arXiv:1804.08598, section 2.1, algorithm 1 and eq. 1",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores"),
)
def nes(
    *,
    queries: Count = 1000,
    samples: Annotated[int, Field(ge=2, multiple_of=2)] = 20,
    sigma: Positive = 0.1,
    step: Positive = 0.2,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
) -> Attack:
    """Natural evolution strategies.

    Args:
        queries: forward passes a row at the most.
        samples: queries of one estimate, half of them on each side.
        sigma: spread of a value's samples, as a share of the budget spread over all values.
        step: length of one step, as a share of the budget.
        momentum: how much of the earlier estimates is kept.
    """
    affordable("nes", queries, samples)
    pairs = samples // 2

    def start(rows: Rows) -> State:
        return {"x_adv": rows.x.clone(), "momentum": torch.zeros_like(rows.x)}

    def picks(rows: Rows, _state: State, _step: int) -> Tensor:
        return rows.noise.integers(POOL, pairs)

    def forward(rows: Rows, state: State, seen: Evaluation, _step: int) -> State:
        ball, x_adv = rows.threat.budget, state["x_adv"]
        kept = momentum * state["momentum"] + (1 - momentum) * seen.grad
        moved = ball.ascend(x_adv, rows.uphill(x_adv, kept), step * ball.eps)
        return {"x_adv": rows.project(moved), "momentum": kept}

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        directions = slices(torch.randn(pool_size(x), generator=rng), x)
        slope = Slope(pairs=pairs, reach=sigma * value_budget(threat, x), directions=directions)
        plan = Blind(queries=queries, start=start, picks=picks, step=forward)
        return blind(model, x, y, threat, slope, plan, rng=rng)

    return run
