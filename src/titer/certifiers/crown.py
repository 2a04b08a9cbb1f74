"""CROWN: linear bounds passed backwards through the network, tighter than intervals and dearer."""

from __future__ import annotations

from typing import Literal

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, certifier
from titer.core.protocols import Certificates, Certifier
from titer.core.threat import Threat
from titer.engine.certificates import Bounding, searched

_NORMS = ("linf", "l2", "l1")


@certifier(
    "crown",
    paper="Zhang et al. 2018, arXiv:1811.00866, table 1; on graphs Xu et al. 2020, arXiv:2002.12920",
    norms=_NORMS,
)
def crown(*, steps: Count = 8, layers: Literal["linear", "interval"] = "linear") -> Certifier:
    """CROWN linear bounds.

    The lead of the predicted class over every other is bounded by a linear function of the input; in l2 and l1 it is
    minimised over the ball itself, by the dual norm. The radius is found by bisection up to the threat's eps, starting
    from the one that intervals prove, so that it is never below it.

    Args:
        steps: halvings of the radius; it is found to eps / 2^steps, and always from below.
        layers: bounds of the layers inside: `linear` for each value that may be of either sign, or `interval`
            (CROWN-IBP), which costs one backward pass a class.
    """
    boundings: tuple[Bounding, ...] = ("interval", "linear")
    if layers == "linear":
        boundings = (*boundings, "linear throughout")

    def run(model: Model, x: Tensor, threat: Threat, *, rng: Generator) -> Certificates:  # noqa: ARG001 - a proof draws nothing
        _, y, radius = searched(model, x, threat, boundings, steps, _NORMS)
        return Certificates(prediction=y, radius=radius)

    return run
