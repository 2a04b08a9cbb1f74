"""Adam for rows that restart at times of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.engine.ascent import State

_FIRST, _SECOND, _FLOOR = 0.9, 0.999, 1e-12


def blank(x: Tensor) -> State:
    """Return the moments of rows [n, ...] that have not moved, and their ages."""
    return {"mean": torch.zeros_like(x), "square": torch.zeros_like(x), "age": torch.zeros_like(x.flatten(1)[:, 0])}


def adam(state: State, grad: Tensor) -> tuple[Tensor, State]:
    """Return the step against `grad` for a rate of 1, and the next moments (Kingma and Ba 2015, algorithm 1)."""
    wide = (-1, *[1] * (grad.dim() - 1))
    age = state["age"] + 1
    mean = state["mean"].lerp(grad, 1 - _FIRST)
    square = state["square"] * _SECOND + (1 - _SECOND) * grad * grad
    root = (square / (1 - _SECOND**age).view(wide)).sqrt_().add_(_FLOOR)
    return -(mean / (1 - _FIRST**age).view(wide)) / root, {"mean": mean, "square": square, "age": age}


def renewed(state: State, over: Tensor) -> State:
    """Return the moments, forgotten by the rows that `over` bool[n] names."""
    live = ~over
    wide = live.view(-1, *[1] * (state["mean"].dim() - 1))
    return {"mean": state["mean"] * wide, "square": state["square"] * wide, "age": state["age"] * live}
