"""SimBA: one direction at a time, up or else down, and kept where the goal comes nearer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.ascent import State, taken
from titer.engine.queries import Search, opened, search, shuffled
from titer.engine.rows import Rows
from titer.threats.balls import per_row, size

_TRIES = 3
_STEP = 0.2
_LARGE = 2**31 - 1
_SMALLEST = 1e-30


@attack(
    "simba",
    paper="Guo, Gardner, You, Wilson, Weinberger 2019, arXiv:1905.07121, algorithm 1 and section 3.1",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores"),
)
def simba(
    *,
    queries: Count = 1000,
    basis: Literal["pixel", "dct"] = "pixel",
    step: Annotated[float, Field(gt=0, le=1)] | None = None,
    frequencies: Annotated[float, Field(gt=0, le=1)] = 0.25,
) -> Attack:
    """Simple black-box attack.

    Args:
        queries: forward passes a row at the most.
        basis: `pixel` changes single values, `dct` waves of the discrete cosine transform.
        step: length of one step in the threat's norm, as a share of the budget; by default the whole for single values
            in linf, a fifth elsewhere.
        frequencies: share of each axis's waves that are tried first, the slowest ones; for `dct`.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        # Each value has the whole of linf to itself; what shares the budget with other directions gets a part of it.
        alone = threat.budget.norm == "linf" and basis == "pixel"
        length = threat.budget.eps * (step or (1.0 if alone else _STEP))
        chosen = _pixels(threat, x, rng) if basis == "pixel" else _waves(threat, x, frequencies, rng)

        def propose(rows: Rows, state: State, _query: int) -> tuple[Tensor, State]:
            return _proposed(rows, state, chosen, length)

        return search(model, x, y, threat, Search(queries=queries, start=_start, propose=propose), rng=rng)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Basis:
    """Directions of length 1 in the threat's norm, in the order they are tried: the `early` ones, then the rest."""

    order: Tensor
    early: int
    direction: Callable[[Tensor], Tensor]

    def at(self, step: Tensor, begin: Tensor) -> Tensor:
        """Return the directions float[n, ...] of steps int64[n]; each row begins at a place of its own in each part."""
        step = step % len(self.order)
        first = (step + begin) % self.early
        later = self.early + (step + begin) % max(len(self.order) - self.early, 1)
        return self.direction(self.order[torch.where(step < self.early, first, later)])


def _start(rows: Rows) -> State:
    nothing = torch.zeros(len(rows), dtype=torch.int64, device=rows.x.device)
    begin = rows.noise.integers(_LARGE)
    return {"x_adv": rows.x.clone(), "step": nothing - 1, "up": nothing.bool(), "begin": begin}


def _proposed(rows: Rows, state: State, basis: _Basis, length: float) -> tuple[Tensor, State]:
    """Return the next candidates: the other side of the last direction where it failed, or else a new one."""
    state = _turned(state, state["accepted"])
    candidate = _candidate(rows, state, basis, length)
    for _ in range(_TRIES):
        # A side that the rules close would waste a query: these rows turn once more.
        still = (candidate == state["x_adv"]).flatten(1).all(1)
        if not bool(still.any()):
            break
        turned = _turned(state, torch.zeros_like(still))
        state = {**state, **{name: torch.where(still, turned[name], state[name]) for name in ("step", "up")}}
        candidate[still] = _candidate(rows.take(still), taken(state, still), basis, length)
    return candidate, state


def _turned(state: State, accepted: Tensor) -> State:
    """Return the state of the next question: after + comes -, after - or a success the next direction."""
    new = accepted | ~state["up"]
    return {**state, "step": state["step"] + new.long(), "up": new}


def _candidate(rows: Rows, state: State, basis: _Basis, length: float) -> Tensor:
    direction = basis.at(state["step"], state["begin"]).to(rows.x)
    sign = torch.where(state["up"], length, -length).to(rows.x)
    moved = state["x_adv"] + rows.per_row(sign) * direction * rows.threat.budget.scaled(rows.x)
    return rows.project(moved)


def _pixels(threat: Threat, x: Tensor, rng: Generator) -> _Basis:
    """Return the single values of a row that may change."""
    order = shuffled(threat, x, rng)

    def direction(places: Tensor) -> Tensor:
        blank = x.new_zeros(len(places), x.shape[1:].numel())
        return blank.scatter_(1, places.unsqueeze(1), 1.0).view(-1, *x.shape[1:])

    return _Basis(order=order, early=len(order), direction=direction)


def _waves(threat: Threat, x: Tensor, frequencies: float, rng: Generator) -> _Basis:
    """Return the waves of the discrete cosine transform in each channel, [C, ...]; of a table's one line, [D]."""
    shape, free = x.shape[1:], opened(threat, x)
    sizes = shape[1:] if len(shape) > 1 else shape
    grid = torch.cartesian_prod(*(torch.arange(length) for length in shape)).view(-1, len(shape))
    slow = torch.tensor([math.ceil(frequencies * length) for length in sizes])
    early = (grid[:, -len(sizes) :] < slow).all(1)
    # A random order that puts the slow waves first.
    order = (torch.rand(len(grid), generator=rng) + (~early).float()).argsort()
    axes = [_cosines(length).to(x) for length in sizes]

    def direction(places: Tensor) -> Tensor:
        numbers = grid.to(places.device)[places]
        wave = functional.one_hot(numbers[:, 0], shape[0]).to(x) if len(shape) > 1 else x.new_ones(len(places))
        for axis, number in zip(axes, numbers[:, -len(sizes) :].unbind(1), strict=True):
            wave = wave.unsqueeze(-1) * axis[number].view(-1, *[1] * (wave.dim() - 1), axis.shape[1])
        wave = wave * free
        length = size(threat.budget.norm, wave, torch.zeros_like(wave), torch.ones_like(wave))
        return wave / per_row(length.clamp_min(_SMALLEST), wave)

    return _Basis(order=order.to(x.device), early=int(early.sum()), direction=direction)


def _cosines(length: int) -> Tensor:
    """Return the cosine transform's waves, float32[length, length]: wave k at i is cos(pi (i + 1/2) k / length)."""
    places = torch.arange(length).float()
    return torch.cos(math.pi / length * places.unsqueeze(1) * (places + 0.5))
