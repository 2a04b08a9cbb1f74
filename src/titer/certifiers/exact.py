"""Complete verification of small networks: the nearest input with another prediction, by an integer program."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, certifier
from titer.core.protocols import Certificates, Certifier
from titer.core.threat import Logits, Threat
from titer.engine.bound_graph import Graph
from titer.engine.bound_layers import Maximum
from titer.engine.bounds import tightened
from titer.engine.certificates import SLACK, leads, readable, searched
from titer.engine.programs import Program, nearest
from titer.engine.regions import around

_NORMS = ("linf", "l1")
_STEPS = 8
_GROWTH = 1.5
_PARTS = 64


@certifier("exact", paper="Tjeng, Xiao, Tedrake 2019, arXiv:1711.07356, section 4", norms=_NORMS)
def exact(*, units: Count = 300, time_limit: Positive = 10.0) -> Certifier:
    """Complete verification.

    For each other class a mixed-integer linear program finds the nearest input inside the threat's ball and box that
    the network gives to it; HiGHS solves it, with linear bounds of every layer as its constants. Where time runs out,
    the solver's own lower bound of the distance is returned: smaller than the truth, and proven all the same.

    Args:
        units: ReLU units a network may have; larger ones are refused.
        time_limit: seconds a row.
    """

    def run(model: Model, x: Tensor, threat: Threat, *, rng: Generator) -> Certificates:  # noqa: ARG001 - a proof draws nothing
        if threat.budget.norm in _NORMS:
            _check_size(readable(model, x), units)  # before bounds that take minutes on a network that is refused
        layers, y, radius = searched(model, x, threat, ("interval", "linear", "linear throughout"), _STEPS, _NORMS)
        assert model.rebuild is not None
        rows = (radius < threat.budget.eps).nonzero().flatten().tolist()
        search = _Search(layers=layers, rebuild=model.rebuild, threat=threat, time_limit=time_limit)
        found = [search(x[row : row + 1], y[row : row + 1], float(radius[row])) for row in rows]
        return Certificates(prediction=y, radius=_with(radius, rows, found))

    return run


def _with(radius: Tensor, rows: list[int], found: list[float]) -> Tensor:
    """Return the radii with those of `rows` replaced."""
    index = torch.tensor(rows, dtype=torch.long, device=radius.device)
    return radius.index_put((index,), torch.tensor(found, dtype=radius.dtype, device=radius.device))


def _check_size(layers: Graph, units: int) -> None:
    if layers.rectified > units:
        raise Incompatible(
            f"exact takes networks of at most units = {units} ReLU units, and this one has {layers.rectified}: "
            "crown bounds it"
        )
    pooled = [one.name for one in layers.steps if isinstance(one.layer, Maximum)]
    if pooled:
        raise Incompatible(f"exact takes no max pooling, and layer {pooled[0]!r} is one: crown bounds it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Finds the distance of one row to the nearest other prediction: around it first, then further out."""

    layers: Graph
    rebuild: Callable[[nn.Module], Logits]
    threat: Threat
    time_limit: float

    def __call__(self, x: Tensor, y: Tensor, floor: float) -> float:
        """Return a lower bound, tight where the solver finishes, for `x` [1, ...] that is safe up to `floor`.

        A near region leaves few units undecided, so that its program is small.
        """
        eps, until = self.threat.budget.eps, time.monotonic() + self.time_limit
        while floor < eps:
            near = min(eps, max(floor * _GROWTH, eps / _PARTS))
            bound = self._within(x, y, near, floor, until)
            if bound < near:
                return bound
            floor = near
        return eps

    def _within(self, x: Tensor, y: Tensor, eps: float, floor: float, until: float) -> float:
        region = around(self.rebuild, x, self.threat, torch.tensor([eps], dtype=x.dtype, device=x.device))
        with torch.no_grad():
            least = leads(self.layers, region, y, "linear throughout")[0]
            program = Program.of(self.layers, region, tightened(self.layers, region), eps)
        bound = eps
        for rival in (least <= SLACK).nonzero().flatten().tolist():
            left = until - time.monotonic()
            bound = min(bound, floor if left <= 0 else nearest(program, int(y[0]), rival, floor, left))
        return bound
