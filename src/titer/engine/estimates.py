"""The engine of gradients from scores: what the margin does on both sides of an input says how it slopes there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.errors import SpecError
from titer.core.model import Evaluation, Model
from titer.core.threat import Threat
from titer.engine.ascent import Ascent, State, ascend
from titer.engine.queries import aim, opened
from titer.engine.rows import MICRO_BATCH, Rows
from titer.threats.balls import to_units

POOL = 2**20
"""Places where a slice of the shared random numbers may begin."""

_LENGTHS: dict[str, Callable[[int], float]] = {
    "linf": lambda _values: 1.0,
    "l2": lambda values: float(values) ** 0.5,
    "l1": float,
}

Directions = Callable[[Tensor], Tensor]
"""From int64[n, m], which directions to ask along, to the directions float[n, m, ...] in units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """How one attack looks at the margin: along `pairs` directions of length `reach` (in units), to both sides."""

    pairs: int
    reach: float
    directions: Directions

    def look(self, rows: Rows, state: State) -> Evaluation:
        """Return logits and the margin's estimated gradient; 2 `pairs` + 1 queries a row, one where it has won.

        The state's `picks` int64[n, pairs] say along which directions.
        """
        x_adv, picks = state["x_adv"], state["picks"]
        logits = rows.logits(x_adv)
        grad = torch.zeros_like(x_adv)
        open_rows, most = (~rows.won(x_adv, logits)).nonzero().flatten(), max(1, MICRO_BATCH // (2 * self.pairs))
        for part in open_rows.split(most) if len(open_rows) else ():
            grad[part] = self._estimated(rows.take(part), x_adv[part], picks[part])
        return Evaluation(logits, grad)

    def _estimated(self, rows: Rows, x_adv: Tensor, picks: Tensor) -> Tensor:
        """Return the sum of (f(x + reach v) - f(x - reach v)) v / (2 reach) over the directions v."""
        scale = rows.threat.budget.scaled(rows.x)
        ways = self.directions(picks).to(x_adv)
        moves = ways * (self.reach * scale)
        asked = torch.cat([x_adv.unsqueeze(1) + moves, x_adv.unsqueeze(1) - moves], 1)
        margins = _margins(rows, asked)
        rises = (margins[:, : self.pairs] - margins[:, self.pairs :]) / (2 * self.reach)
        slope = torch.einsum("nm,nmv->nv", rises.to(x_adv), ways.flatten(2)).view_as(x_adv)
        return to_units(slope, scale)


def _margins(rows: Rows, asked: Tensor) -> Tensor:
    """Return the margins float[n, m] at `asked` [n, m, ...]; a model is asked inside the domain only."""
    count = asked.shape[1]
    clean, inside = rows.x.repeat_interleave(count, 0), asked.flatten(0, 1)
    for rule in rows.threat.domain:
        inside = rule.project(inside, clean)
    logits = rows.many_logits(inside.view_as(asked)).flatten(0, 1)
    margins = aim(rows, logits, rows.y.repeat_interleave(count, 0))
    # Where a model gives no number, nothing is known of its slope.
    return margins.view(-1, count).nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """An ascent along estimated gradients: `queries` a row at the most, and how to step from what was seen.

    `start` gives the first state; `picks` the directions of the look of a step, from rows, state and its number.
    """

    queries: int
    start: Callable[[Rows], State]
    picks: Callable[[Rows, State, int], Tensor]
    step: Callable[[Rows, State, Evaluation, int], State]


def blind(model: Model, x: Tensor, y: Tensor, threat: Threat, slope: Slope, plan: Blind, *, rng: Generator) -> Tensor:
    """Return for each row of `x` [N, ...] the first iterate that won, or else the last one."""

    def start(rows: Rows, restart: int) -> State:
        del restart
        state = plan.start(rows)
        return {**state, "picks": plan.picks(rows, state, 0)}

    def step(rows: Rows, state: State, seen: Evaluation, count: int) -> State:
        state = plan.step(rows, state, seen, count)
        return {**state, "picks": plan.picks(rows, state, count + 1)}

    steps = plan.queries // (2 * slope.pairs + 1)
    return ascend(model, x, y, threat, Ascent(steps=steps, start=start, step=step, look=slope.look), rng=rng)


def affordable(name: str, queries: int, asked: int) -> None:
    """Refuse a budget that pays for no step.

    Raises:
        SpecError: `queries` are fewer than one look at a row and the `asked` questions of one estimate.
    """
    if queries <= asked:
        raise SpecError(f"{name}.queries = {queries!r} is not allowed: one step takes {asked + 1}")


def value_budget(threat: Threat, x: Tensor) -> float:
    """Return the change, in units, that spends the budget when every open value of a row makes it."""
    return threat.budget.eps / _LENGTHS[threat.budget.norm](int(opened(threat, x).sum()))


def slices(pool: Tensor, x: Tensor) -> Directions:
    """Return directions [n, m, ...] as slices of one pool of random numbers, picked by where they begin.

    One pool for all, since drawing them anew would cost as much as a small model (Salimans et al. 2017,
    arXiv:1703.03864, section 2.1).
    """
    windows = pool.to(x).unfold(0, x.shape[1:].numel(), 1)
    return lambda picks: windows[picks].unflatten(-1, x.shape[1:])


def pool_size(x: Tensor) -> int:
    """Return how many random numbers `slices` of rows x [N, ...] need."""
    return POOL + x.shape[1:].numel()
