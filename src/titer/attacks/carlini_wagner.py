"""Carlini and Wagner: weigh the change's size against the margin, and search each row's own weight."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.adam import adam, blank, renewed
from titer.engine.ascent import State
from titer.engine.nearest import Descent, Seen, descend
from titer.engine.rows import Rows
from titer.engine.slopes import way_to_boundary
from titer.engine.variables import variable_of
from titer.threats.balls import to_units

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_CHECKS, _GAIN = 10, 2e-3
_HEAVIER = 10.0
_RATE = {"l2": 0.2, "linf": 0.05}
_CUT = 0.1


@attack(
    "carlini-wagner",
    paper="Carlini, Wagner 2017, arXiv:1608.04644, section VI.A (L2) and VI.C (Linf)",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l2", "linf")),
    minimal=True,
)
def carlini_wagner(
    *,
    searches: Count = 5,
    steps: Count = 100,
    weight: Positive = 2.0,
    rate: Positive = 1.0,
    confidence: NonNegative = 0.0,
) -> Attack:
    """Carlini and Wagner, each row in a search of its own.

    Args:
        searches: weights tried (l2); times the search may get no nearer (linf).
        steps: gradient steps of each search, at most; a row that gets no further begins its next search at once.
        weight: first weight of the margin, in multiples of what a linear model needs.
        rate: Adam's rate, in multiples of a fitting share of the way to the linearised boundary.
        confidence: margin that a find must exceed, in logits.
    """

    def start(rows: Rows) -> State:
        variable, nothing = variable_of(rows).start(), torch.zeros_like(rows.x.flatten(1)[:, 0])
        own = {"variable": variable, "weight": nothing + weight, "searched": nothing}
        return {"x_adv": rows.x.clone(), **own, **blank(variable), **_OPENING[rows.threat.budget.norm](nothing)}

    def move(rows: Rows, state: State, seen: Seen, count: int) -> State:
        short = (confidence - seen.value).clamp_min(0.0)
        if count == 0:
            state = {**state, **_sized(rows, seen, short, rate)}
        state = _WEIGHED[rows.threat.budget.norm](rows, state, seen, short, steps)
        return {**state, "done": state["searched"] >= searches}

    descent = Descent(steps=searches * steps, start=start, step=move, lead=confidence)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return descend(model, x, y, threat, descent, rng=rng)

    return run


def _sized(rows: Rows, seen: Seen, short: Tensor, rate: float) -> State:
    """Return what makes the search free of units: the way to the boundary, the margin's gap and slope, and the rate.

    The paper's rate of 0.01 and first weight fit images in [0, 1] and one kind of network.
    """
    ball = rows.threat.budget
    scale, way = ball.scaled(rows.x), way_to_boundary(rows, seen.value, seen.grad)
    variable, open_values = variable_of(rows), rows.follow(rows.x, seen.grad) != 0
    length = torch.linalg.vector_norm(to_units(variable.slope(variable.start()) * open_values, scale).flatten(1), dim=1)
    steepest = (seen.grad * scale).flatten(1).abs().amax(1)
    return {
        "way": way,
        "gap": short.clamp_min(1e-6),
        "steepest": steepest.where(steepest > 0, 1.0),
        "rate": rate * _RATE[ball.norm] * way / length.where(length > 0, 1.0),
    }


def _weighed_l2(rows: Rows, state: State, seen: Seen, short: Tensor, steps: int) -> State:
    """Step against |u|^2 + c f, both in multiples of what a linear model makes of them (there, c is 2)."""
    push = 2 * state["weight"] / state["gap"]
    objective = (seen.distance / state["way"]).square() + push * short
    units = to_units(state["x_adv"] - rows.x, rows.threat.budget.scaled(rows.x))
    pull = rows.per_row(2 / state["way"].square()) * units
    state = _moved(rows, state, seen, pull, push * (short > 0))
    state |= {"least": torch.minimum(state["least"], objective), "hit": state["hit"] | seen.won}
    check = state["age"] % max(steps // _CHECKS, 1) == 0
    over = (check & (state["least"] > (1 - _GAIN) * state["record"])) | (state["age"] >= steps)
    state["record"] = torch.where(check, state["least"], state["record"])
    return _next_weight(rows, state, over) if bool(over.any()) else state


def _next_weight(rows: Rows, state: State, over: Tensor) -> State:
    """Begin the next search where one is over: a smaller weight after a find, a larger one after none."""
    weight, hit, endless = state["weight"], state["hit"], torch.full_like(state["weight"], float("inf"))
    high = torch.where(over & hit, torch.minimum(state["high"], weight), state["high"])
    low = torch.where(over & ~hit, torch.maximum(state["low"], weight), state["low"])
    tried = torch.where(high.isfinite(), (low + high) / 2, _HEAVIER * low)
    wide = rows.per_row(over)
    return {
        **state,
        **renewed(state, over),
        "variable": torch.where(wide, variable_of(rows).start(), state["variable"]),
        "x_adv": torch.where(wide, rows.x, state["x_adv"]),
        "weight": torch.where(over, tried, weight),
        "high": high,
        "low": low,
        "hit": hit & ~over,
        "least": torch.where(over, endless, state["least"]),
        "record": torch.where(over, endless, state["record"]),
        "searched": state["searched"] + over,
    }


def _weighed_linf(rows: Rows, state: State, seen: Seen, short: Tensor, steps: int) -> State:
    """Step against sum max(|u| - tau, 0) + c f; tau falls at each nearer find (section VI.C).

    The paper stops at the first tau that it cannot reach. Here the fall and the rate are halved there instead.
    """
    units = to_units(state["x_adv"] - rows.x, rows.threat.budget.scaled(rows.x))
    pull = (units.abs() > rows.per_row(state["tau"])) * units.sign()
    hit = seen.won & (seen.distance < (1 - state["cut"] / 5) * state["anchor"])
    stuck = ~hit & (state["stage"] + 1 >= max(steps // 2, 1))
    found, over = state["nearest"].isfinite(), hit | stuck
    cut = torch.where(stuck & found, state["cut"] / 2, state["cut"])
    state = _moved(rows, state, seen, pull, state["weight"] / state["steepest"] * (short > 0), cut / _CUT)
    return {
        **state,
        **renewed(state, over),
        "cut": cut,
        "tau": torch.where(over, (1 - cut) * state["nearest"], state["tau"]),
        "anchor": torch.where(hit, seen.distance, state["anchor"]),
        "weight": torch.where(stuck & ~found, _HEAVIER * state["weight"], state["weight"]),
        "stage": (state["stage"] + 1) * ~over,
        "searched": state["searched"] + stuck,
    }


def _moved(rows: Rows, state: State, seen: Seen, pull: Tensor, push: Tensor, share: Tensor | float = 1.0) -> State:
    """Return the state after one step of Adam against `pull` [n, ...] less `push` [n] times the margin's slope."""
    variable, scale = variable_of(rows), rows.threat.budget.scaled(rows.x)
    slope = variable.slope(state["variable"])
    grad = to_units(pull * slope, scale) - rows.per_row(push) * rows.follow(state["x_adv"], seen.grad) * slope
    step, moments = adam(state, grad)
    moved, x_adv = variable.settle(state["variable"] + rows.per_row(state["rate"] * share) * step)
    return {**state, **moments, "variable": moved, "x_adv": x_adv}


def _opening_l2(nothing: Tensor) -> State:
    endless = nothing + float("inf")
    return {"low": nothing, "high": endless, "hit": nothing > 0, "least": endless, "record": endless}


def _opening_linf(nothing: Tensor) -> State:
    endless = nothing + float("inf")
    return {"tau": endless, "anchor": endless, "cut": nothing + _CUT, "stage": nothing}


_OPENING = {"l2": _opening_l2, "linf": _opening_linf}
_WEIGHED = {"l2": _weighed_l2, "linf": _weighed_linf}
