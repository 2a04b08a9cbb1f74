"""Sparse-RS: random search over which few values change, each to an end of its range."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Share, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.queries import Search, search, settled, shuffled
from titer.engine.rows import Rows
from titer.threats.room import limits

_SCHEDULE = ((0, 1), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))
"""From which of 10,000 queries on the exchanged share is divided by what (appendix A.1)."""
_PAPER = 10_000
_NEAR_END = 0.25
"""Share of exchanges that move a value to the nearer end of its range."""
_UNBOUNDED = 10.0
"""Units that a value moves where the domain has no end."""
_LARGE = 2**31 - 1
_LOW_BITS = 2.0**12
_TINY = 1e-12


@attack(
    "sparse-rs",
    paper="Croce, Andriushchenko, Singh, Flammarion, Hein 2022, arXiv:2006.12834, algorithm 1 (L0)",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores", norms=("l0",), outputs=("classes", "labels", "value")),
)
def sparse_rs(*, queries: Count = 1000, share: Share = 0.3) -> Attack:
    """Sparse random search.

    Departures for tables, where most values matter to nobody: it begins with blocks of k values that together cover the
    row, and draws what enters and leaves by how near the goal the questions came that a value took part in.

    Args:
        queries: forward passes a row at the most.
        share: part of the k values that the first exchanges replace; it falls on the paper's schedule.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        if threat.worded:
            raise Incompatible("sparse-rs takes values for numbers, and those of a note are words, which have no order")
        order = shuffled(threat, x, rng)
        count = min(int(threat.budget.eps), len(order))
        blocks = min(math.ceil(len(order) / count), max(queries // 2, 1))
        free = torch.zeros(x[0].numel(), dtype=torch.bool, device=x.device)
        free[order] = True

        def start(rows: Rows) -> State:
            return _start(rows)

        def propose(rows: Rows, state: State, query: int) -> tuple[Tensor, State]:
            state = _credited(state)
            if query < blocks:
                moved = _block(state, order, count, query)
            else:
                moved = _exchanged(rows, state, free, count, exchanges(share, query, queries, count))
            candidate = settled(rows, moved.view_as(rows.x))
            return candidate, {**state, "tried": (candidate != rows.x).flatten(1)}

        return search(model, x, y, threat, Search(queries=queries, start=start, propose=propose), rng=rng)

    return run


def exchanges(share: float, query: int, queries: int, count: int) -> int:
    """Return how many of the `count` values are exchanged at this query: at least one."""
    place = query / queries * _PAPER
    divisor = next(by for begin, by in reversed(_SCHEDULE) if place >= begin)
    return min(max(1, round(share * count / divisor)), count)


def _start(rows: Rows) -> State:
    """Return the clean rows, with the two ends of each value's range, the farther one first, and no credit yet."""
    low, high = _ends(rows)
    far = torch.where(high - rows.x >= rows.x - low, high, low).flatten(1)
    near = torch.where(high - rows.x >= rows.x - low, low, high).flatten(1)
    nothing = torch.zeros_like(far)
    return {
        "x_adv": rows.x.clone(),
        "clean": rows.x.flatten(1),
        "far": far,
        "near": near,
        "begin": rows.noise.integers(_LARGE),
        "tried": torch.zeros_like(far, dtype=torch.bool),
        "credit": nothing,
        "times": nothing.clone(),
    }


def _ends(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest input [n, ...]; where the domain has no end, so many units away."""
    away = _UNBOUNDED * rows.threat.budget.scaled(rows.x)
    low, high = limits(rows.threat, rows.x)
    return torch.where(low.isfinite(), low, rows.x - away), torch.where(high.isfinite(), high, rows.x + away)


def _credited(state: State) -> State:
    """Return the state after the last answer: each value that took part is credited with how near the goal it came."""
    tried = state["tried"].to(state["credit"])
    return {
        **state,
        "credit": state["credit"] + tried * state["seen"].unsqueeze(1),
        "times": state["times"] + tried,
    }


def _block(state: State, order: Tensor, count: int, query: int) -> Tensor:
    """Return the clean rows with their next block of values at the farther ends, float[n, d]."""
    along = query * count + torch.arange(count, device=order.device)
    chosen = order[(state["begin"].unsqueeze(1) + along) % len(order)]
    return state["clean"].scatter(1, chosen, state["far"].gather(1, chosen))


def _exchanged(rows: Rows, state: State, free: Tensor, count: int, many: int) -> Tensor:
    """Return the best rows with `many` changed values put back, and as many others moved, float[n, d]."""
    best, clean = state["x_adv"].flatten(1), state["clean"]
    changed = best != clean
    width = best.shape[1]
    worth = _worth(state)
    # One number a value, as hashing costs more than a tree: no value both leaves and enters; the low bits pick ends.
    number = rows.noise.uniform(width)
    chance, side = _gumbel(number).to(best), (number * _LOW_BITS).frac()
    leaving = (chance - worth).masked_fill(~changed, -torch.inf)
    entering = (chance + worth).masked_fill(changed | ~free, -torch.inf)
    room = (count - changed.sum(1)).clamp_min(0)
    left = _first(leaving, many * torch.ones_like(room))
    came = _first(entering, many + room)
    end = torch.where(side < _NEAR_END, state["near"], state["far"])
    return torch.where(came, end, torch.where(left, clean, best))


def _worth(state: State) -> Tensor:
    """Return how near the goal each value's questions came, float[n, d]: standardised, 0 where it was in none."""
    known = state["times"] > 0
    mean = state["credit"] / state["times"].clamp_min(1.0)
    count = known.sum(1, keepdim=True).clamp_min(1)
    centre = torch.where(known, mean, 0.0).sum(1, keepdim=True) / count
    apart = torch.where(known, mean - centre, 0.0)
    spread = (apart.square().sum(1, keepdim=True) / count).sqrt().clamp_min(_TINY)
    return apart / spread


def _gumbel(uniform: Tensor) -> Tensor:
    """Return Gumbel noise: the largest of noise plus worth is a draw in proportion to exp(worth)."""
    return -(-(uniform.clamp_min(_TINY)).log()).clamp_min(_TINY).log()


def _first(score: Tensor, many: Tensor) -> Tensor:
    """Return bool[n, d]: the `many` int64[n] largest finite scores of each row."""
    most = min(int(many.max()), score.shape[1])
    top = score.topk(most, dim=1)
    taken = (torch.arange(most, device=score.device) < many.unsqueeze(1)) & top.values.isfinite()
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, top.indices, taken)
