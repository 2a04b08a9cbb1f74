"""Jacobian saliency map: a few values at a time, those nearest to the goal, are moved to the end of their range."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import Ascent, State, ascend
from titer.engine.rows import Rows

_UNBOUNDED = 10.0
"""Units that a value moves where the domain has no end."""


@attack(
    "jsma",
    paper="Papernot, McDaniel, Jha, Fredrikson, Celik, Swami 2016, arXiv:1511.07528, algorithm 2, eq. 8",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l0",)),
)
def jsma(*, theta: Positive = 1.0, at_once: Count = 2, refine: Count = 2) -> Attack:
    """Jacobian-based saliency map attack.

    The paper's saliency multiplies what a pair of values does for the target by what it does against the other
    classes, which needs a d x d matrix. Here a value's saliency is its first-order gain on the goal's margin, towards
    the end of its range and in either direction (as in Wiyatno, Xu 2018, arXiv:1808.07945): gains of a pair add up, so
    the best pair are the two best values, and memory is O(d). It holds for two classes and for every goal.

    Args:
        theta: how far a value moves, as a share of the way to the end of its range.
        at_once: values moved a step; 2 are the paper's pairs.
        refine: further steps, as a multiple of the steps that the budget takes, on the values that moved already.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        values = min(int(threat.budget.eps), x.shape[1:].numel())
        steps = (1 + refine) * math.ceil(values / at_once)
        ascent = Ascent(steps=steps, start=_start, step=partial(_step, theta, at_once), look=_look)
        return ascend(model, x, y, threat, ascent, rng=rng)

    return run


def _start(rows: Rows, restart: int) -> State:
    del restart
    low = torch.full((len(rows),), -float("inf"), dtype=rows.x.dtype, device=rows.x.device)
    shut = torch.zeros_like(rows.x, dtype=torch.bool)
    return {"x_adv": rows.x.clone(), "best": rows.x.clone(), "highest": low, "shut": shut}


def _look(rows: Rows, state: State) -> Evaluation:
    return rows.evaluate(state["x_adv"], rows.threat.goal.margin)


def _step(theta: float, at_once: int, rows: Rows, state: State, seen: Evaluation, _count: int) -> State:
    """Move the values of the largest gain; where the budget is spent, only values that have moved already."""
    x_adv, value = state["x_adv"], rows.threat.goal.margin(seen.logits, rows.y)
    better = value > state["highest"]
    direction = rows.follow(x_adv, seen.grad)
    way = theta * (_end(rows, x_adv, direction) - x_adv)
    gain = (direction * way).masked_fill(state["shut"], 0.0).flatten(1)
    moved, refused = _moved(rows, x_adv, way, gain, at_once)
    return {
        "x_adv": moved,
        "shut": state["shut"] | refused,
        "best": torch.where(rows.per_row(better), x_adv, state["best"]),
        "highest": torch.where(better, value, state["highest"]),
    }


def _moved(rows: Rows, x_adv: Tensor, way: Tensor, gain: Tensor, at_once: int) -> tuple[Tensor, Tensor]:
    """Return the rows with their best values moved, and bool[n, ...]: values that the rules let nobody move.

    The rules may answer a move by more changes than the budget allows. Then the best value moves alone, or is refused:
    pulled back into the threat, the same values would be chosen again for ever.
    """
    changed = (x_adv != rows.x).flatten(1)
    left = (rows.threat.budget.eps - changed.sum(1)).clamp_min(0)
    top = _best(gain, changed, left, at_once).view_as(x_adv)
    moved = rows.inside(torch.where(top, x_adv + way, x_adv))
    holds = rows.per_row(rows.threat.contains(moved, rows.x))
    moved = torch.where(holds, moved, x_adv)
    if bool(holds.all()) or at_once == 1:
        return moved, top & ~holds
    alone, refused = _moved(rows, x_adv, way, gain, 1)
    return torch.where(holds, moved, alone), refused & ~holds


def _best(gain: Tensor, changed: Tensor, left: Tensor, at_once: int) -> Tensor:
    """Return bool[n, d]: the `at_once` largest gains, of which no more than `left` float[n] are on untouched values."""
    untouched = gain.masked_fill(changed, -1.0)
    order = untouched.topk(min(at_once, gain.shape[1]), dim=1)
    rank = torch.arange(order.indices.shape[1], device=gain.device)
    fresh = torch.zeros_like(changed).scatter(1, order.indices, (order.values > 0) & (rank < left.unsqueeze(1)))
    # A value that has moved may move again at no cost; of all that may, the largest gains are taken.
    allowed = torch.where(changed | fresh, gain, 0.0)
    chosen = allowed.topk(min(at_once, gain.shape[1]), dim=1)
    return torch.zeros_like(changed).scatter(1, chosen.indices, chosen.values > 0)


def _end(rows: Rows, x_adv: Tensor, direction: Tensor) -> Tensor:
    """Return where each value's range ends in its direction; without an end, so many units further."""
    away = _UNBOUNDED * rows.threat.budget.scaled(x_adv) * direction.sign()
    bounds = rows.threat.bounds(x_adv)
    if bounds is None:
        return x_adv + away
    low, high = (bound.expand_as(x_adv) for bound in bounds)
    end = torch.where(direction > 0, high, low)
    return torch.where(end.isfinite(), end, x_adv + away)
