"""SPSA: Adam on a gradient that is estimated by changing all values at once, each up or down at random."""

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

_FIRST_DECAY, _SECOND_DECAY, _SMALLEST = 0.9, 0.999, 1e-8


@attack(
    "spsa",
    paper="Uesato, O'Donoghue, van den Oord, Kohli 2018, arXiv:1802.05666, algorithm 1",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores"),
)
def spsa(
    *,
    queries: Count = 1000,
    samples: Annotated[int, Field(ge=2, multiple_of=2)] = 20,
    delta: Positive = 0.3,
    step: Positive = 0.5,
) -> Attack:
    """Simultaneous perturbation stochastic approximation.

    Args:
        queries: forward passes a row at the most.
        samples: queries of one estimate, half of them on each side.
        delta: change of each value in a sample, as a share of the budget spread over all values.
        step: Adam's learning rate, as a share of the same.
    """
    affordable("spsa", queries, samples)
    pairs = samples // 2

    def start(rows: Rows) -> State:
        return {"x_adv": rows.x.clone(), "first": torch.zeros_like(rows.x), "second": torch.zeros_like(rows.x)}

    def picks(rows: Rows, _state: State, _step: int) -> Tensor:
        return rows.noise.integers(POOL, pairs)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        share = value_budget(threat, x)
        signs = torch.randint(2, (pool_size(x),), generator=rng) * 2.0 - 1.0

        def forward(rows: Rows, state: State, seen: Evaluation, count: int) -> State:
            scale = rows.threat.budget.scaled(rows.x)
            # In units, so that Adam's step is the same share of the budget for every value.
            slope = rows.follow(state["x_adv"], seen.grad) * scale
            first = _FIRST_DECAY * state["first"] + (1 - _FIRST_DECAY) * slope
            second = _SECOND_DECAY * state["second"] + (1 - _SECOND_DECAY) * slope.square()
            mean = first / (1 - _FIRST_DECAY ** (count + 1))
            spread = (second / (1 - _SECOND_DECAY ** (count + 1))).sqrt()
            # A margin may be of any size: Adam's small constant is taken relative to each row's steepest value.
            least = _SMALLEST * rows.per_row(spread.flatten(1).amax(1)) + torch.finfo(spread.dtype).tiny
            moved = state["x_adv"] + step * share * scale * mean / (spread + least)
            return {"x_adv": rows.project(moved), "first": first, "second": second}

        slope = Slope(pairs=pairs, reach=delta * share, directions=slices(signs, x))
        plan = Blind(queries=queries, start=start, picks=picks, step=forward)
        return blind(model, x, y, threat, slope, plan, rng=rng)

    return run
