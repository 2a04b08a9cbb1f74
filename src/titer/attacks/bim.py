"""Basic iterative method: small steps from the clean input."""

from __future__ import annotations

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.climb import Schedule, climb


@attack(
    "bim",
    paper="Kurakin, Goodfellow, Bengio 2017, arXiv:1607.02533, section 2.2",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
)
def bim(*, steps: Count = 10, step: Positive = 0.2) -> Attack:
    """Basic iterative method.

    Args:
        steps: gradient steps.
        step: length of one step, as a share of the budget.
    """
    schedule = Schedule(steps=steps, step=step, random_start=False)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return climb(model, x, y, threat, schedule, rng=rng)

    return run
