"""The engine of random search on scores: propose a change, ask once, keep it where the goal came nearer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.threat import Threat
from titer.engine.ascent import State, taken
from titer.engine.rows import Rows, blocks
from titer.threats.room import may_change


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One attack's mathematics: where it begins, and what it asks next.

    Each question is one query a row, `queries` of them at most. The engine keeps in the state `x_adv`, the best input
    so far; `value` float[n], its `aim`; `seen` float[n], the aim of the last proposal; and `accepted` bool[n], whether
    that became `x_adv`. `propose` returns the candidates, inside the threat, and the state with whatever else it
    remembers.
    """

    queries: int
    start: Callable[[Rows], State]
    propose: Callable[[Rows, State, int], tuple[Tensor, State]]


def search(model: Model, x: Tensor, y: Tensor, threat: Threat, plan: Search, *, rng: Generator) -> Tensor:
    """Return for each row of `x` [N, ...] the first candidate that won, or else the best one."""
    found = x.clone()
    for block in blocks(model, x, y, threat, rng):
        found[block.at] = block.settled(_searched(block, plan))
    return found


def _searched(rows: Rows, plan: Search) -> Tensor:
    state = plan.start(rows)
    found = state["x_adv"].clone()
    live = torch.arange(len(rows), device=found.device)
    candidate = state["x_adv"]
    nothing = torch.full((len(rows),), -float("inf"), dtype=found.dtype, device=found.device)
    state = {**state, "value": nothing, "accepted": torch.ones_like(live, dtype=torch.bool)}
    for query in range(plan.queries):
        logits = rows.logits(candidate)
        hit = rows.won(candidate, logits)
        state = _accepted(rows, state, candidate, aim(rows, logits, rows.y))
        if bool(hit.any()):
            found[live[hit]] = candidate[hit]
            keep = ~hit
            if not bool(keep.any()):
                return found
            live, rows, state = live[keep], rows.take(keep), taken(state, keep)
        if query < plan.queries - 1:
            candidate, state = plan.propose(rows, state, query)
    found[live] = state["x_adv"]
    return found


def _accepted(rows: Rows, state: State, candidate: Tensor, value: Tensor) -> State:
    better = value > state["value"]
    return {
        **state,
        "x_adv": torch.where(rows.per_row(better), candidate, state["x_adv"]),
        "value": torch.where(better, value, state["value"]),
        "accepted": better,
        "seen": value,
    }


def aim(rows: Rows, logits: Tensor, y: Tensor) -> Tensor:
    """Return what is climbed, float[n]: the goal's margin, or its loss on masks.

    The margin of a mask is that of the one pixel which decides, and no other pixel's change shows in it.
    """
    goal = rows.threat.goal
    return goal.loss(logits, y) if rows.model.output == "mask" else goal.margin(logits, y)


def opened(threat: Threat, x: Tensor) -> Tensor:
    """Return bool, shaped as one row of x [N, ...]: the values that may change; all, where a threat lets none."""
    free = may_change(threat, x)
    return free if bool(free.any()) else torch.ones_like(free)


def shuffled(threat: Threat, x: Tensor, rng: Generator) -> Tensor:
    """Return the flat places of the values of a row that may change, in an order drawn from `rng`, int64[d].

    One order for all: a row that begins at a place of its own meets every order equally often.
    """
    places = opened(threat, x).reshape(-1).nonzero().flatten()
    return places[torch.randperm(len(places), generator=rng).to(places.device)]


def settled(rows: Rows, candidate: Tensor) -> Tensor:
    """Return a candidate that keeps the budget and every shrinking rule, inside the other rules too."""
    separable = all(rule.shrinks for rule in rows.threat.domain)
    return candidate if separable else rows.project(candidate)
