"""JSMA: change the most salient pair of values, again and again, until the model gives way."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Goal, Threat
from titer.engine.ascent import Ascent, State, ascend
from titer.engine.rows import RowLoss, Rows
from titer.threats.room import limits, may_change

Saliency = Literal["margin", "product"]
_UNITS = 10.0
_AGAIN = 8
_WIDEST = 512


@attack(
    "jsma",
    paper="Papernot et al. 2016, arXiv:1511.07528, algorithm 3, eq. 9 and 10 (both ways: Wiyatno, Xu 2018, "
    "arXiv:1808.07945, algorithm 1)",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l0",)),
)
def jsma(*, theta: Positive = 1.0, values: Count = 2, saliency: Saliency = "margin") -> Attack:
    """Jacobian-based saliency map attack, under L0.

    Args:
        theta: how far a value moves at once, as a share of its range.
        values: how many values move at once; the paper's pairs, or one.
        saliency: `margin` moves what raises the goal's margin most; `product` is the paper's rule for pairs.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        steps = _steps(threat, x, theta, values)
        step = partial(_moved, theta, values)
        look = _margin_and_parts if saliency == "product" and values == 2 else _margin
        return ascend(model, x, y, threat, Ascent(steps=steps, start=_start, step=step, look=look), rng=rng)

    return run


def _steps(threat: Threat, x: Tensor, theta: float, values: int) -> int:
    """Return how many moves the budget lasts for; values that have changed may move on, where there is room."""
    count = min(int(threat.budget.eps), int(may_change(threat, x).sum()))
    low, high = limits(threat, x)
    bounded = bool((low.isfinite() & high.isfinite()).all())
    return math.ceil(count / values) * math.ceil(1 / min(theta, 1.0)) + (0 if bounded else _AGAIN)


def _start(rows: Rows, restart: int) -> State:
    del restart
    still = torch.zeros_like(rows.x, dtype=torch.int8)
    return {"x_adv": rows.x.clone(), "way": still, "shut": (still > 0) | ~may_change(rows.threat, rows.x)}


def _margin(rows: Rows, state: State) -> Evaluation:
    logits, grad = rows.evaluate(state["x_adv"], rows.threat.goal.margin)
    return Evaluation(logits, grad.unsqueeze(1))


def _margin_and_parts(rows: Rows, state: State) -> Evaluation:
    """Return logits, and the slopes [n, 2, ...] of what the margin counts for the goal and of what it counts against.

    For any error these are the best other class and the true class, for a target the target and its best rival.
    """
    goal = rows.threat.goal
    slopes = [rows.evaluate(state["x_adv"], _part(goal, sign)) for sign in (1.0, -1.0)]
    return Evaluation(slopes[0].logits, torch.stack([slope.grad for slope in slopes], 1))


def _part(goal: Goal, sign: float) -> RowLoss:
    def part(logits: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            weight = torch.autograd.grad(goal.margin(leaf, y).sum(), leaf)[0]
        return (logits * sign * (sign * weight).clamp_min(0.0)).flatten(1).sum(1)

    return part


def _moved(theta: float, values: int, rows: Rows, state: State, seen: Evaluation, _step: int) -> State:
    """Return the state after the best move; where the rules forbid it, its values are shut instead."""
    x_adv = state["x_adv"]
    effects = _effects(rows, state, seen.grad.flatten(2), theta)
    changed = (x_adv != rows.x).flatten(1)
    left = int(rows.threat.budget.eps) - changed.sum(1)
    pick = _best_pair if seen.grad.shape[1] == 2 else partial(_best_values, values)
    chosen = pick(effects, changed, left)
    room = torch.stack(_room(rows, state, theta), 1).flatten(2)
    move = torch.where(chosen, room, 0.0)
    wanted = x_adv + (move[:, 0] - move[:, 1]).view_as(x_adv)
    inside = rows.inside(wanted)
    holds = rows.per_row(rows.threat.contains(inside, rows.x))
    touched = chosen.any(1).view_as(x_adv)
    way = torch.where(touched, (chosen[:, 0].to(torch.int8) - chosen[:, 1].to(torch.int8)).view_as(x_adv), state["way"])
    return {
        "x_adv": torch.where(holds, inside, x_adv),
        "way": torch.where(holds, way, state["way"]),
        "shut": state["shut"] | (touched & ~holds),
    }


def _room(rows: Rows, state: State, theta: float) -> tuple[Tensor, Tensor]:
    """Return how far each value may move up and down now, [n, ...] both, in raw values.

    A value goes on in the way it went first, and one without limits has a range of ten units, or of its own size.
    """
    x_adv, way = state["x_adv"], state["way"]
    low, high = limits(rows.threat, rows.x)
    unit = torch.maximum(_UNITS * rows.threat.budget.scaled(rows.x), x_adv.abs())
    stride = theta * torch.where(low.isfinite() & high.isfinite(), high - low, unit)
    open_values = ~state["shut"]
    up = torch.minimum(stride, high - x_adv) * (open_values & (way >= 0))
    return up, torch.minimum(stride, x_adv - low) * (open_values & (way <= 0))


def _effects(rows: Rows, state: State, slopes: Tensor, theta: float) -> Tensor:
    """Return what each value's move up and down would do to first order, [n, parts, 2, values]."""
    up, down = (room.flatten(1).unsqueeze(1) for room in _room(rows, state, theta))
    return torch.stack([slopes * up, -slopes * down], 2)


def _best_values(values: int, effects: Tensor, changed: Tensor, left: Tensor) -> Tensor:
    """Return bool[n, 2, d]: the moves that raise the margin most; no more new values than are left."""
    gain = effects[:, 0]
    chosen = torch.zeros_like(gain, dtype=torch.bool)
    for _ in range(values):
        affordable = (changed | (left > 0).unsqueeze(1)).unsqueeze(1)
        best = gain.where(affordable, 0.0).flatten(1).max(1, keepdim=True)
        place = best.indices % changed.shape[1]
        useful = best.values > 0
        chosen.flatten(1).scatter_(1, best.indices, useful | chosen.flatten(1).gather(1, best.indices))
        left = left - (useful & ~changed.gather(1, place)).squeeze(1).long()
        gain = gain.scatter(2, place.unsqueeze(1).expand(-1, 2, 1), 0.0)
    return chosen


def _best_pair(effects: Tensor, changed: Tensor, left: Tensor) -> Tensor:
    """Return bool[n, 2, d]: the two moves with the largest product of eq. 10, the margin's best where none counts.

    The product (a_p + a_q)(b_p + b_q) of what a pair gains and what it takes grows in each term, so a partner that
    another value beats in both terms is never best: only the first two layers of the Pareto front can be, and the
    search needs no matrix of all pairs.
    """
    margin = effects.sum(1, keepdim=True)
    single = _best_values(2, margin, changed, left)
    affordable = (changed | (left > 0).unsqueeze(1)).unsqueeze(1).expand(-1, 2, -1).flatten(1)
    gains, takes = (part.flatten(1).masked_fill(~affordable, -math.inf) for part in effects.unbind(1))
    front = _layers(gains, takes)
    a, b = gains.gather(1, front), takes.gather(1, front)
    place = front % changed.shape[1]
    new = ~changed.gather(1, place)
    total_a, total_b = a.unsqueeze(2) + a.unsqueeze(1), b.unsqueeze(2) + b.unsqueeze(1)
    apart = place.unsqueeze(2) != place.unsqueeze(1)
    paid = (new.unsqueeze(2).long() + new.unsqueeze(1)) <= left.view(-1, 1, 1)
    product = (total_a * total_b).where((total_a > 0) & (total_b > 0) & apart & paid, 0.0).flatten(1)
    best = product.max(1)
    pair = torch.stack([best.indices // front.shape[1], best.indices % front.shape[1]], 1)
    chosen = torch.zeros_like(gains, dtype=torch.bool).scatter(1, front.gather(1, pair), value=True)
    return torch.where((best.values > 0).view(-1, 1, 1), chosen.view_as(single), single)


def _layers(a: Tensor, b: Tensor) -> Tensor:
    """Return places [n, m] that hold the first two layers of each row's Pareto front of (a, b), and perhaps others."""
    order = torch.argsort(a, dim=1, descending=True, stable=True)
    height = b.gather(1, order)
    first = _rising(height)
    both = first | _rising(height.masked_fill(first, -math.inf))
    most = min(max(int(both.sum(1).max()), 2), _WIDEST, a.shape[1])
    rank = height.where(both, -math.inf) + a.gather(1, order)
    return order.gather(1, rank.topk(most, dim=1).indices)


def _rising(height: Tensor) -> Tensor:
    """Return bool[n, d]: higher than all before."""
    before = height.cummax(1).values.roll(1, 1)
    before[:, 0] = -math.inf
    return height > before
