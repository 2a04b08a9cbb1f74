"""Fast gradient sign method: one step of the whole budget."""

from __future__ import annotations

from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.climb import Schedule, climb


@attack(
    "fgsm",
    paper="Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572, section 4",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    single_step=True,
)
def fgsm() -> Attack:
    """Fast gradient sign method.

    In a norm other than Linf the single step follows that norm's steepest direction (the fast gradient method).
    """
    schedule = Schedule(steps=1, step=1.0, random_start=False)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return climb(model, x, y, threat, schedule, rng=rng)

    return run
