"""Square: random search that sets one square of the input at a time to the edge of the budget."""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Share, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State
from titer.engine.queries import Search, search, settled
from titer.engine.rows import Rows
from titer.engine.windows import Field, Window, field
from titer.threats.balls import to_units
from titer.threats.room import ends

_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which a square's area halves: 10, 50, 200 ... of the paper's 10,000."""
_AHEAD = 32
"""Queries whose random numbers are drawn at once: most of the cost of a few numbers is in the call."""
_LARGE = 2**31
_SMALLEST = 1e-30
_LEAST = 3
"""Side of the smallest window in L2, which is two pyramids."""


@attack(
    "square",
    paper="Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049, algorithms 1, 2 (Linf) and 3 (L2)",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores", norms=("linf", "l2")),
)
def square(*, queries: Count = 1000, share: Share = 0.8) -> Attack:
    """Square attack.

    Segments of signals [C, L], cubes of volumes and random subsets of tables [D] stand for the squares of images.

    Args:
        queries: forward passes a row at the most.
        share: part of the input that the first square covers; it halves nine times over the queries.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        linf, values = threat.budget.norm == "linf", field(threat, x, rng)
        window = cache(values.window)

        def start(rows: Rows) -> State:
            return _stripes(rows, values) if linf else _tiles(rows, values)

        def propose(rows: Rows, state: State, query: int) -> tuple[Tensor, State]:
            if query % _AHEAD == 0:
                state = {**state, "numbers": rows.noise.integers(_LARGE, _AHEAD, 3 + values.channels)}
            now = window(area(share, query + 1, queries), 1 if linf else _LEAST)
            move = _repaint if linf else _reshape
            return move(rows, state, values, now, state["numbers"][:, query % _AHEAD]), state

        return search(model, x, y, threat, Search(queries=queries, start=start, propose=propose), rng=rng)

    return run


def area(share: float, query: int, queries: int) -> float:
    """Return the part of the input that the square of this query covers (section 4.1, rescaled to the queries)."""
    halvings: int = sum(query / queries > mark for mark in _HALVINGS)
    return share / 2.0**halvings


def _stripes(rows: Rows, values: Field) -> State:
    """Return vertical stripes, each at an end of the budget, and both ends (section 4.2, initialisation)."""
    low, high = rows.limits or ends(rows.threat, rows.x)
    shape = rows.x.shape[1:]
    line = shape if values.order is not None else (shape[0], *[1] * (len(shape) - 2), shape[-1])
    striped = torch.where(rows.noise.signs(*line) > 0, high, low)
    return {"x_adv": settled(rows, striped), "low": low, "high": high}


def _repaint(rows: Rows, state: State, values: Field, window: Window, numbers: Tensor) -> Tensor:
    """Return the best input with a window at an end of the budget, a sign a channel (algorithm 2)."""
    index = values.place(window.at(numbers[:, 0]))
    best = values.view(state["x_adv"])
    here, low, high = (part.gather(2, index) for part in (best, values.view(state["low"]), values.view(state["high"])))
    up = _odd(numbers[:, 3:])
    # Where the window holds these very values, the question would be wasted: all its signs turn.
    same = (torch.where(up, high, low) == here).flatten(1).all(1)
    painted = torch.where(up ^ same.view(-1, 1, 1), high, low)
    return settled(rows, best.scatter(2, index, painted).view_as(state["x_adv"]))


def _tiles(rows: Rows, values: Field) -> State:
    """Return a grid of tiles of random sign, of the budget's length together (section 4.3, figure 3)."""
    window, places = values.tiles()
    shape = (len(rows), values.channels, *places.shape)
    patterns = window.pattern[rows.noise.integers(len(window.pattern), len(places))].unsqueeze(1)
    painted = (patterns * rows.noise.signs(values.channels, len(places)).unsqueeze(3)).expand(shape).to(rows.x)
    index = values.place(places.view(1, -1)).expand(len(rows), -1, -1)
    scale = _scale(rows, values)
    units = torch.zeros_like(values.view(rows.x)).scatter(2, index, painted.flatten(2)) * (scale > 0)
    length = torch.linalg.vector_norm(units, dim=(1, 2), keepdim=True)
    changed = values.view(rows.x) + rows.threat.budget.eps * units / length.clamp_min(_SMALLEST) * scale
    return {"x_adv": rows.project(changed.view_as(rows.x))}


def _reshape(rows: Rows, state: State, values: Field, window: Window, numbers: Tensor) -> Tensor:
    """Return the best input with the change of one window, and what is left of the budget, in another (algorithm 3)."""
    scale, clean = _scale(rows, values), values.view(rows.x)
    units = to_units(values.view(state["x_adv"]) - clean, scale)
    target, source = (values.place(window.at(numbers[:, one])) for one in (0, 1))
    here, without = units.gather(2, target), units.scatter(2, target, 0.0)
    free = (rows.threat.budget.eps**2 - units.square().sum((1, 2), keepdim=True)).clamp_min(0) / values.channels
    moved = here.square().sum(2, keepdim=True) + without.gather(2, source).square().sum(2, keepdim=True)
    pattern = window.pattern[numbers[:, 2] % len(window.pattern)].unsqueeze(1).to(clean)
    free_cells = (scale > 0).expand_as(clean).gather(2, target)
    pattern = torch.where(_odd(numbers[:, 3:]), pattern, -pattern) * free_cells
    mixed = pattern + _unit(here)
    # A window of one cell cancels its own pattern: then the cell's sign turns, and no budget is lost.
    mixed = torch.where((mixed == 0).all(2, keepdim=True), pattern, mixed)
    units = without.scatter(2, source, 0.0).scatter(2, target, (moved + free).sqrt() * _unit(mixed))
    return settled(rows, rows.inside((clean + units * scale).view_as(rows.x)))


def _odd(numbers: Tensor) -> Tensor:
    """Return bool[n, C, 1]: a fair coin for each number, int64[n, C]."""
    return (numbers & 1).bool().unsqueeze(2)


def _scale(rows: Rows, values: Field) -> Tensor:
    """Return the size of a unit of each value that may change, and 0 elsewhere, [1, C, space]."""
    return values.view((rows.threat.budget.scaled(rows.x) * values.open).expand(1, *rows.x.shape[1:]))


def _unit(part: Tensor) -> Tensor:
    """Return part [n, C, k] with each channel's length made 1, or 0 where it has none."""
    length = torch.linalg.vector_norm(part, dim=2, keepdim=True)
    return part / torch.where(length > 0, length, 1.0)
