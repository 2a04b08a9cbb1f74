"""The engine of least-perturbation attacks: step by the margin's gradient, and keep each row's nearest find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.threat import Threat
from titer.engine.ascent import State, taken
from titer.engine.rows import RowLoss, Rows, blocks
from titer.threats.goals import HighestLoss
from titer.threats.output_goals import Endless

_FURTHER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)
"""How far beyond its end a way without a find is followed, in times of its length."""


class Slope(NamedTuple):
    """What a look measures: logits, float[n] how far beyond the boundary, and the gradient to follow [n, ...]."""

    logits: Tensor
    value: Tensor
    grad: Tensor


class Seen(NamedTuple):
    """One look: a Slope with bool[n] whether the goal is reached, and float[n], the change's size."""

    value: Tensor
    grad: Tensor
    won: Tensor
    distance: Tensor


def margin_slope(rows: Rows, state: State) -> Slope:
    """Measure the goal's margin and its gradient."""
    return slope_of(rows, state["x_adv"], rows.threat.goal.margin)


def loss_slope(rows: Rows, state: State) -> Slope:
    """Measure the goal's margin and the gradient of its loss."""
    return slope_of(rows, state["x_adv"], rows.threat.goal.loss)


def slope_of(rows: Rows, x_adv: Tensor, loss: RowLoss) -> Slope:
    """Measure the goal's margin and the gradient of `loss`."""
    logits, grad = rows.evaluate(x_adv, loss)
    return Slope(logits, rows.threat.goal.margin(logits, rows.y), grad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """One attack's mathematics: where it begins, and how it steps from what it saw.

    The engine puts `nearest` float[n] into the state: the size of each row's nearest find so far, or infinity. A
    step may set `done` bool[n]: these rows leave. Iterates must be inside the domain (`Rows.inside`). A find needs
    more than `lead` of a margin. After the last step the engine halves the way from the clean row to the find
    `bisections` times, one forward pass each.
    """

    steps: int
    step: Callable[[Rows, State, Seen, int], State]
    start: Callable[[Rows], State] = lambda rows: {"x_adv": rows.x.clone()}
    look: Callable[[Rows, State], Slope] = margin_slope
    lead: float = 0.0
    bisections: int = 0


def descend(model: Model, x: Tensor, y: Tensor, threat: Threat, descent: Descent, *, rng: Generator) -> Tensor:
    """Return each row's nearest find, in the threat's norm; the last iterate where nothing was found.

    Raises:
        Incompatible: the model gives no gradient, or the goal is one that nothing reaches.
    """
    if isinstance(threat.goal, (HighestLoss, Endless)):
        raise Incompatible("a least-perturbation attack needs a goal that can be reached: it has no budget to use up")
    found = x.clone()
    for block in blocks(model, x, y, threat, rng, free=True):
        found[block.at] = block.settled(_descended(block, descent))
    return found


def _descended(everyone: Rows, descent: Descent) -> Tensor:
    rows, state = everyone, descent.start(everyone)
    found = state["x_adv"].clone()
    nearest = torch.full((len(rows),), float("inf"), dtype=found.dtype, device=found.device)
    live = torch.arange(len(rows), device=found.device)
    for step in range(descent.steps):
        seen = _look(rows, state, nearest[live], descent)
        _keep(found, nearest, live, state["x_adv"], seen.won, seen.distance)
        state = descent.step(rows, {**state, "nearest": nearest[live]}, seen, step)
        leaves = nearest[live] == 0
        if "done" in state:
            leaves = leaves | state["done"]
        if bool(leaves.any()):
            keep = ~leaves
            missed = leaves & nearest[live].isinf()
            found[live[missed]] = state["x_adv"][missed]
            live, rows, state = live[keep], rows.take(keep), taken(state, keep)
            if not len(live):
                break
    if len(live):
        _last(rows, state["x_adv"], found, nearest, live, descent.lead)
    if everyone.whole is not None:
        _lengthened(everyone, found, nearest, descent.lead)
    return _bisected(everyone, found, nearest, descent)


def _look(rows: Rows, state: State, nearest: Tensor, descent: Descent) -> Seen:
    logits, value, grad = descent.look(rows, state)
    won, distance = _found(rows, state["x_adv"], logits, nearest, descent.lead)
    return Seen(value, grad, won, distance)


def _found(rows: Rows, x_adv: Tensor, logits: Tensor, nearest: Tensor, lead: float) -> tuple[Tensor, Tensor]:
    """Return bool[n] whether the goal is reached, and the change's size; what would be kept is confirmed exactly."""
    goal, distance = rows.threat.goal, rows.distance(x_adv)
    won = goal.won(logits, rows.y)
    if lead > 0:
        won = won & (goal.margin(logits, rows.y) > lead)
    if rows.model.exact is not None:
        nearer = (won & (distance < nearest)).nonzero().flatten()
        won[nearer] = rows.take(nearer).won(x_adv[nearer], logits[nearer])
    return won, distance


def _keep(found: Tensor, nearest: Tensor, live: Tensor, x_adv: Tensor, won: Tensor, distance: Tensor) -> None:
    better = won & (distance < nearest[live])
    found[live[better]], nearest[live[better]] = x_adv[better], distance[better]


def _last(rows: Rows, x_adv: Tensor, found: Tensor, nearest: Tensor, live: Tensor, lead: float) -> None:
    """Look at the last iterate, which no step follows: a forward pass is enough."""
    won, distance = _found(rows, x_adv, rows.logits(x_adv), nearest[live], lead)
    _keep(found, nearest, live, x_adv, won, distance)
    missed = nearest[live].isinf()
    found[live[missed]] = x_adv[missed]


def _lengthened(rows: Rows, found: Tensor, nearest: Tensor, lead: float) -> None:
    """Look further along each way that ends without a find: among whole numbers it may stop short for ever."""
    ways = found - rows.x
    still = (nearest.isinf() & (rows.settled(found) == rows.x).flatten(1).all(1)).nonzero().flatten()
    if len(still):
        at_rest = rows.take(still)
        slope = at_rest.evaluate(at_rest.x, rows.threat.goal.margin).grad
        ways[still] = rows.threat.budget.ascend(at_rest.x, at_rest.follow(at_rest.x, slope), 1.0) - at_rest.x
    for factor in _FURTHER:
        at = nearest.isinf().nonzero().flatten()
        if not len(at):
            return
        some = rows.take(at)
        x_adv = some.inside(some.x + factor * ways[at])
        won, distance = _found(some, x_adv, some.logits(x_adv), nearest[at], lead)
        _keep(found, nearest, at, x_adv, won, distance)


def _bisected(rows: Rows, found: Tensor, nearest: Tensor, descent: Descent) -> Tensor:
    """Look for nearer finds on the way from the clean row, which is a find's only known neighbour beyond doubt."""
    far = (nearest.isfinite() & (nearest > 0)).nonzero().flatten()
    rows, high = rows.take(far), torch.ones_like(nearest[far])
    low, ends = torch.zeros_like(high), found[far]
    for _ in range(descent.bisections if len(far) else 0):
        middle = (low + high) / 2
        x_adv = rows.inside(rows.x + rows.per_row(middle) * (ends - rows.x))
        won, distance = _found(rows, x_adv, rows.logits(x_adv), nearest[far], descent.lead)
        _keep(found, nearest, far, x_adv, won, distance)
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
    return found
