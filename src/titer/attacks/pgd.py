"""Projected gradient descent: small steps from random starts inside the budget."""

from __future__ import annotations

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.climb import Schedule, climb


@attack(
    "pgd",
    paper="Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083, section 2.1",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
)
def pgd(*, steps: Count = 40, step: Positive = 0.1, restarts: Count = 1, random_start: bool = True) -> Attack:
    """Projected gradient descent.

    Args:
        steps: gradient steps of each start.
        step: length of one step, as a share of the budget.
        restarts: random starts; each next one gets only the rows that survived.
        random_start: begin at a uniform draw of the ball; False begins at the clean row.
    """
    schedule = Schedule(steps=steps, step=step, random_start=random_start, restarts=restarts)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return climb(model, x, y, threat, schedule, rng=rng)

    return run
