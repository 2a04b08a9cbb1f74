"""Complete verification of small networks: the nearest input that changes the prediction, by a mixed-integer program."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, certifier
from titer.core.protocols import Certificates, Certifier
from titer.core.threat import Threat
from titer.engine.bound_graph import Graph
from titer.engine.bound_layers import Maximum
from titer.engine.bounds import tightened
from titer.engine.certificates import leads, searched
from titer.engine.programs import Program, nearest
from titer.engine.regions import Around, around

_NORMS = ("linf", "l1")
_STEPS = 8


@certifier("exact", paper="Tjeng, Xiao, Tedrake 2019, arXiv:1711.07356, eq. 6 to 11", norms=_NORMS)
def exact(*, units: Count = 300, time_limit: Positive = 10.0) -> Certifier:
    """Complete verification.

    For each other class a mixed-integer linear program finds the nearest input inside the threat's ball and box that the
    network gives to it; HiGHS solves it, with linear bounds of every layer as its constants. Where time runs out, the
    solver's own lower bound of the distance is returned: smaller than the truth, and proven all the same.

    Args:
        units: ReLU units a network may have; larger ones are refused.
        time_limit: seconds a row.
    """

    def run(model: Model, x: Tensor, threat: Threat, *, rng: Generator) -> Certificates:  # noqa: ARG001 - a proof draws nothing
        layers, y, radius = searched(model, x, threat, ("interval", "linear", "linear throughout"), _STEPS, _NORMS)
        _check_size(layers, units)
        assert model.rebuild is not None
        found = radius.clone()
        for row in (radius < threat.budget.eps).nonzero().flatten().tolist():
            whole = torch.tensor([threat.budget.eps], dtype=x.dtype, device=x.device)
            region = around(model.rebuild, x[row : row + 1], threat, whole)
            found[row] = _distance(layers, region, y[row : row + 1], threat, float(radius[row]), time_limit)
        return Certificates(prediction=y, radius=found)

    return run


def _check_size(layers: Graph, units: int) -> None:
    if layers.rectified > units:
        raise Incompatible(
            f"exact takes networks of at most units = {units} ReLU units, and this one has {layers.rectified}: "
            "crown bounds it"
        )
    pooled = [one.name for one in layers.steps if isinstance(one.layer, Maximum)]
    if pooled:
        raise Incompatible(f"exact takes no max pooling, and layer {pooled[0]!r} is one: crown bounds it")


def _distance(
    layers: Graph, region: Around, y: Tensor, threat: Threat, floor: float, time_limit: float
) -> float:  # fmt: skip
    """Return a lower bound, tight where the solver finishes, of the distance to the nearest other prediction."""
    eps = threat.budget.eps
    with torch.no_grad():
        least = leads(layers, region, y, "linear throughout")[0]
        program = Program.of(layers, region, tightened(layers, region), eps)
    rivals = (least <= 0).nonzero().flatten().tolist()
    own = int(y[0])
    return min([nearest(program, own, rival, floor, time_limit / len(rivals)) for rival in rivals], default=eps)
