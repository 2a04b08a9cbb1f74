"""What explainers share: the scores that they explain, gradients checked beforehand, drawn numbers, and pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.threat import Logits
from titer.engine.features import answers

_PASSED_ROWS = 1000


def spoken(name: str, model: Model, target: Tensor) -> Logits:
    """Return the function from raw inputs to scores [N, K] of the classes `target` int64[N] is one of.

    Raises:
        Incompatible: the model gives decisions alone.
    """
    if model.access == "decision":
        raise Incompatible(f"{name} explains scores, and {model.name} gives decisions alone")
    if len(target) and int(target.min()) < 0:
        raise Incompatible(f"{name}: target = {int(target.min())} is no class: allowed are whole numbers from 0")

    def scores(x: Tensor) -> Tensor:
        out = answers(model, x)
        return out.flatten(2).mean(2) if model.output == "mask" else out

    return scores


def needs_gradient(name: str, model: Model, x: Tensor) -> None:
    """Raise Incompatible where no gradient flows from the model's answers to the rows x [n, ...]."""
    if model.access != "gradient":
        raise Incompatible(f"{name} needs gradients, and {model.name} gives {model.access} alone")
    with torch.enable_grad():
        out = answers(model, x[:1].detach().clone().requires_grad_())
    if not out.requires_grad:
        raise Incompatible(f"{name} needs gradients, and {model.name} gives none")


def explained(
    x: Tensor, target: Tensor, explain: Callable[[Tensor, Tensor], Tensor], *, passes: int, rng: Generator
) -> Tensor:
    """Return the attributions of all rows x [N, ...] by `explain` of some of them, each of which takes `passes`."""
    if not len(x):
        return x.clone()
    size, found = max(1, _PASSED_ROWS // passes), []
    with drawn(rng), torch.enable_grad():
        for rows, classes in zip(x.split(size), target.split(size), strict=True):
            found.append(explain(rows.detach().clone(), classes).detach().to(x.dtype))
    return torch.cat(found)


@contextmanager
def drawn(rng: Generator) -> Iterator[None]:
    """Seed the global sources of torch and NumPy from `rng`, and put them back: captum draws from both."""
    seed = int(torch.randint(2**31, (1,), generator=rng))
    state = np.random.get_state()  # noqa: NPY002 - the library's own source
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def pieces(x: Tensor, cells: int) -> Tensor:
    """Return int64[1, ...], which piece each value of a row of x [N, ...] belongs to: what is hidden or shown together.

    A table's values are a piece each. Others are cut into `cells` parts along each side, with all channels together.
    """
    if x.dim() == 2:
        return torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    sides = x.shape[2:]
    number = torch.zeros(sides, dtype=torch.int64, device=x.device)
    for at, side in enumerate(sides):
        count = min(cells, side)
        place = torch.arange(side, device=x.device) * count // side
        number = number * count + place.view([-1 if one == at else 1 for one in range(len(sides))])
    return number.expand(1, x.shape[1], *sides).contiguous()
