"""Interval bound propagation: the cheapest proof, of use on networks that were trained for it."""

from __future__ import annotations

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, certifier
from titer.core.protocols import Certificates, Certifier
from titer.core.threat import Threat
from titer.engine.certificates import searched

_NORMS = ("linf", "l2", "l1")


@certifier("interval-bounds", paper="Gowal et al. 2018, arXiv:1810.12715, section 3", norms=_NORMS)
def interval_bounds(*, steps: Count = 10) -> Certifier:
    """Interval bounds.

    The box around a row is passed through the network layer by layer. The radius is found by bisection up to the
    threat's eps; one try costs two forward passes. In l2 and l1 the bounds are those of the box around the ball.

    Args:
        steps: halvings of the radius; it is found to eps / 2^steps, and always from below.
    """

    def run(model: Model, x: Tensor, threat: Threat, *, rng: Generator) -> Certificates:  # noqa: ARG001 - a proof draws nothing
        _, y, radius = searched(model, x, threat, ("interval",), steps, _NORMS)
        return Certificates(prediction=y, radius=radius)

    return run
