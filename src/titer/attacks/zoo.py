"""ZOO: Adam on a few values at a time, whose slopes are finite differences."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.estimates import Blind, Slope, affordable, blind, value_budget
from titer.engine.queries import shuffled
from titer.engine.rows import Rows

_FIRST_DECAY, _SECOND_DECAY = 0.9, 0.999
_STEPS = {"linf": 1.0, "l2": 0.3, "l1": 0.1}


@attack(
    "zoo",
    paper="Chen, Zhang, Sharma, Yi, Hsieh 2017, arXiv:1708.03999, algorithm 2 (ZOO-Adam) and eq. 6",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores"),
)
def zoo(
    *, queries: Count = 1000, coordinates: Count = 10, delta: Positive = 0.1, step: Positive | None = None
) -> Attack:
    """Zeroth order optimization, inside a fixed budget.

    The paper adds the change's length to the loss; here the budget bounds it, so that the attack compares with the
    others at the same budget. Its Newton form is left out: the margin of a network of straight pieces has no curvature.

    Args:
        queries: forward passes a row at the most.
        coordinates: values whose slopes are asked before each step, two queries each.
        delta: change of the value that is asked for, as a share of the budget spread over all values.
        step: Adam's learning rate, as a share of the budget; by default the whole in linf, where each value has it to
            itself, and for the steepest value 0.3 in l2 and 0.1 in l1.
    """
    affordable("zoo", queries, 2 * coordinates)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        order, share = shuffled(threat, x, rng), value_budget(threat, x)
        pairs = min(coordinates, len(order))

        def start(rows: Rows) -> State:
            blank, steepest = torch.zeros_like(rows.x), rows.x.new_zeros(len(rows), 1)
            moments = {"first": blank, "second": blank, "times": blank, "steepest": steepest}
            return {"x_adv": rows.x.clone(), **moments, "begin": rows.noise.integers(len(order))}

        def picks(rows: Rows, state: State, count: int) -> Tensor:
            along = torch.arange(count * pairs, (count + 1) * pairs, device=rows.x.device)
            return order[(state["begin"].unsqueeze(1) + along) % len(order)]

        def directions(chosen: Tensor) -> Tensor:
            blank = torch.zeros(*chosen.shape, x.shape[1:].numel(), device=x.device, dtype=x.dtype)
            return blank.scatter(2, chosen.unsqueeze(2), 1.0).view(*chosen.shape, *x.shape[1:])

        def forward(rows: Rows, state: State, seen: Evaluation, _step: int) -> State:
            return _stepped(rows, state, seen, threat.budget.eps * (step or _STEPS[threat.budget.norm]))

        slope = Slope(pairs=pairs, reach=delta * share, directions=directions)
        plan = Blind(queries=queries, start=start, picks=picks, step=forward)
        return blind(model, x, y, threat, slope, plan, rng=rng)

    return run


def _stepped(rows: Rows, state: State, seen: Evaluation, rate: float) -> State:
    """Return the state after an Adam step of the values that were asked for (algorithm 2, lines 4 to 9)."""
    scale, chosen = rows.threat.budget.scaled(rows.x), state["picks"]

    def part(name: str) -> Tensor:
        return state[name].flatten(1).gather(1, chosen)

    def put(name: str, values: Tensor) -> Tensor:
        return state[name].flatten(1).scatter(1, chosen, values).view_as(rows.x)

    slope = (seen.grad * scale).flatten(1).gather(1, chosen)
    times = part("times") + 1
    first = _FIRST_DECAY * part("first") + (1 - _FIRST_DECAY) * slope
    second = _SECOND_DECAY * part("second") + (1 - _SECOND_DECAY) * slope.square()
    mean, spread = first / (1 - _FIRST_DECAY**times), (second / (1 - _SECOND_DECAY**times)).sqrt()
    steepest = torch.maximum(state["steepest"], spread.amax(1, keepdim=True))
    # Where values share the budget, Adam's steps of one size would give each as much as the steepest.
    width = spread if rows.threat.budget.norm == "linf" else steepest
    move = rate * mean / width.clamp_min(torch.finfo(spread.dtype).tiny)
    change = torch.zeros_like(rows.x).flatten(1).scatter(1, chosen, move).view_as(rows.x)
    return {
        **state,
        "x_adv": rows.project(state["x_adv"] + change * scale),
        "steepest": steepest,
        "first": put("first", first),
        "second": put("second", second),
        "times": put("times", times),
    }
