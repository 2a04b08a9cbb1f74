"""Auto-PGD: projected gradient descent with momentum that halves its own step where it no longer gets on."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal

import torch
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.plugins import Count, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import Ascent, State, ascend
from titer.engine.climb import random_start
from titer.engine.rows import Rows
from titer.threats.losses import difference_of_logits_ratio, rival, targeted_ratio

Loss = Literal["goal", "dlr", "targeted-dlr", "margin"]
_MOMENTUM, _RISING = 0.75, 0.75
_FIRST, _SHRINK, _SHORTEST = 22, 3, 6
_START = {"linf": 2.0, "l2": 2.0, "l1": 1.0}
_SPARSITY, _SPARSER, _STILL_SPARSER = 0.2, 1.5, 0.95
_L1_INTERVAL, _L1_SHRINK, _L1_SHORTEST = 0.04, 1.5, 0.1


@attack(
    "apgd",
    paper="Croce, Hein 2020, arXiv:2003.01690, algorithm 1, eq. 6 and 7 (L1: Croce, Hein 2021, arXiv:2103.01208)",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
)
def apgd(*, steps: Count = 100, loss: Loss = "goal", restarts: Count = 1) -> Attack:
    """Auto-PGD.

    DLR is undefined below three classes and its targeted form below four: there, and for outputs that are no single
    class, the margin takes its place.

    Args:
        steps: gradient steps of each start.
        loss: what is climbed: `goal` (cross-entropy, as log odds), `dlr`, `targeted-dlr` or `margin`.
        restarts: random starts, each next one on the survivors; `targeted-dlr` takes another rival class each time.
    """

    def start(rows: Rows, restart: int) -> State:
        first = random_start(rows)
        state = {"x_adv": first, "before": first, "best": first, **_blank(rows)}
        if _aims(loss, rows):
            state["target"] = rival(rows.logits(rows.x), rows.y, restart)
        return state

    def step(rows: Rows, state: State, seen: Evaluation, count: int) -> State:
        state = _observed(state, seen, _values(loss, rows, state, seen.logits), count)
        marks = _marks(rows.threat.budget.norm, steps)
        if count in marks:
            state = _checked(rows, state, count - marks[count])
        return _moved(rows, state, count)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        ascent = Ascent(steps=steps, start=start, step=step, look=partial(_look, loss))
        starts = restarts if loss != "targeted-dlr" else min(restarts, _rivals(model, x, rng))
        return ascend(model, x, y, threat, ascent, rng=rng, restarts=starts)

    return run


def _rivals(model: Model, x: Tensor, rng: Generator) -> int:
    """Return how many classes there are beside the true one: each is aimed at once."""
    with torch.no_grad():
        logits = (model.logits if model.draw is None else model.draw(rng))(x[:1])
    return max(logits.shape[1] - 1, 1) if model.output == "classes" else 1


def checkpoints(steps: int) -> dict[int, int]:
    """Return each checkpoint with the one before: at 22 % of the steps, then intervals shorter by 3, at least 6 %."""
    marks, share, interval = [0], _FIRST, _FIRST
    while (mark := -(-share * steps // 100)) < steps:
        marks.append(max(mark, marks[-1] + 1))
        interval = max(interval - _SHRINK, _SHORTEST)
        share += interval
    return {mark: before for mark, before in zip(marks[1:], marks, strict=False) if mark < steps}


@lru_cache
def _marks(norm: str, steps: int) -> dict[int, int]:
    if norm != "l1":
        return checkpoints(steps)
    every = max(int(_L1_INTERVAL * steps), 1)
    return {mark: mark - every for mark in range(every, steps, every)}


def _blank(rows: Rows) -> State:
    """Return what is remembered of rows that have not moved yet; step lengths are shares of the budget."""
    nothing = torch.zeros(len(rows), dtype=rows.x.dtype, device=rows.x.device)
    low = torch.full_like(nothing, -float("inf"))
    return {
        "length": nothing + _START[rows.threat.budget.norm],
        "sparsity": nothing + _SPARSITY,
        "changed": nothing + 1.0,
        "rises": nothing,
        "value": low,
        "highest": low,
        "highest_at_mark": low,
        "shortened": torch.ones_like(nothing, dtype=torch.bool),
        "grad": torch.zeros_like(rows.x),
        "best_grad": torch.zeros_like(rows.x),
    }


def _values(loss: Loss, rows: Rows, state: State, logits: Tensor) -> Tensor:
    own = [state["target"]] if "target" in state else []
    return _loss(loss, rows)(logits, rows.y, *own)


def _look(loss: Loss, rows: Rows, state: State) -> Evaluation:
    own = [state["target"]] if "target" in state else []
    return rows.evaluate(state["x_adv"], _loss(loss, rows), *own)


def _aims(loss: Loss, rows: Rows) -> bool:
    """Return whether rival classes are aimed at: only where any error will do, and there is a choice."""
    return loss == "targeted-dlr" and rows.model.output == "classes" and rows.threat.goal.name == "any-error"


def _loss(loss: Loss, rows: Rows) -> Callable[..., Tensor]:
    goal = rows.threat.goal
    if loss == "goal":
        return goal.loss
    if _aims(loss, rows):
        return targeted_ratio
    return goal.margin if loss == "margin" else partial(difference_of_logits_ratio, goal, rows.model.output)


def _observed(state: State, seen: Evaluation, value: Tensor, count: int) -> State:
    """Return the state with what this iterate showed: did the loss rise, and is it the highest so far."""
    better = value > state["highest"]
    wide = better.view(-1, *[1] * (seen.grad.dim() - 1))
    return {
        **state,
        "rises": state["rises"] + ((value > state["value"]) & (count > 0)),
        "value": value,
        "highest": torch.where(better, value, state["highest"]),
        "grad": seen.grad,
        "best": torch.where(wide, state["x_adv"], state["best"]),
        "best_grad": torch.where(wide, seen.grad, state["best_grad"]),
    }


def _checked(rows: Rows, state: State, interval: int) -> State:
    """Return the state after a checkpoint: rows that no longer get on go back to their best with a shorter step."""
    if rows.threat.budget.norm == "l1":
        return _checked_l1(rows, state)
    few = state["rises"] < _RISING * interval
    stuck = ~state["shortened"] & (state["highest"] <= state["highest_at_mark"])
    back = few | stuck
    wide = rows.per_row(back)
    return {
        **state,
        "length": torch.where(back, state["length"] / 2, state["length"]),
        "x_adv": torch.where(wide, state["best"], state["x_adv"]),
        "grad": torch.where(wide, state["best_grad"], state["grad"]),
        "rises": torch.zeros_like(state["rises"]),
        "highest_at_mark": state["highest"],
        "shortened": back,
    }


def _checked_l1(rows: Rows, state: State) -> State:
    """Return the state after an L1 checkpoint: the share of values that move follows what the best change needs."""
    changed = (state["best"] != rows.x).flatten(1).sum(1) / rows.x.shape[1:].numel()
    sparser = changed < _STILL_SPARSER * state["changed"]
    shorter = (state["length"] / _L1_SHRINK).clamp_min(_L1_SHORTEST * _START["l1"])
    wide = rows.per_row(sparser)
    return {
        **state,
        "changed": changed,
        "sparsity": changed / _SPARSER,
        "length": torch.where(sparser, _START["l1"], shorter),
        "x_adv": torch.where(wide, state["best"], state["x_adv"]),
        "grad": torch.where(wide, state["best_grad"], state["grad"]),
    }


def _moved(rows: Rows, state: State, count: int) -> State:
    """Return the state with the next iterate (algorithm 1, lines 4 and 7)."""
    x_adv = state["x_adv"]
    ahead = rows.project(_stepped(rows, state))
    if count and rows.threat.budget.norm != "l1":
        # x + m (ahead - x) + (1 - m) (x - before), in place: memory costs more than arithmetic.
        carried = ahead.mul_(_MOMENTUM).add_(x_adv, alpha=2 - 2 * _MOMENTUM).sub_(state["before"], alpha=1 - _MOMENTUM)
        ahead = rows.project(carried)
    return {**state, "x_adv": ahead, "before": x_adv}


def _stepped(rows: Rows, state: State) -> Tensor:
    ball, x_adv = rows.threat.budget, state["x_adv"]
    direction = rows.uphill(x_adv, state["grad"])
    length = rows.per_row(state["length"] * ball.eps)
    if ball.norm == "l1":
        return x_adv + length * _sparse(direction * ball.scaled(x_adv), state["sparsity"]) * ball.scaled(x_adv)
    return ball.ascend(x_adv, direction, length)


def _sparse(grad: Tensor, share: Tensor) -> Tensor:
    """Return the signs of each row's largest entries, `share` float[n] of them, with an L1 norm of 1."""
    flat = grad.flatten(1)
    size = flat.abs()
    count = (share * flat.shape[1]).long().clamp(1, flat.shape[1])
    least = size.sort(dim=1).values.gather(1, (flat.shape[1] - count).unsqueeze(1))
    signs = flat.sign() * (size >= least)
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1.0)).view_as(grad)
