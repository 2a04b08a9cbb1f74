"""Universal perturbation: one pattern for every patient, as a compromised scanner would add."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.joint import Lessons, Pattern, Worn, spread
from titer.engine.rows import Rows

FitShare = Annotated[float, Field(gt=0, le=1)]


@attack(
    "universal",
    paper="Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein 2020, arXiv:1811.11304, algorithm 1; posed by "
    "Moosavi-Dezfooli, Fawzi, Fawzi, Frossard 2017, arXiv:1610.08401, eq. 1",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    joint=True,
)
def universal(
    *, fit_share: FitShare = 0.5, epochs: Count = 20, batch: Count = 64, step: Positive = 0.25, restarts: Count = 4
) -> Attack:
    """Universal perturbation: one pattern inside the budget for all rows.

    Args:
        fit_share: share of the rows, drawn at random, that the pattern is learned on; it is put on all of them.
        epochs: passes over these rows.
        batch: rows a step.
        step: length of the first step as a share of the budget; steps shrink to nothing along the way.
        restarts: searches; every second one begins at the opposite of the last one's find.
    """
    lessons = Lessons(fit_share=fit_share, epochs=epochs, batch=batch, restarts=restarts)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        return spread(model, x, y, threat, _pattern(x, threat, step), lessons, rng=rng)

    return run


def _pattern(x: Tensor, threat: Threat, length: float) -> Pattern:
    ball, nothing = threat.budget, x.new_zeros(1, *x.shape[1:])

    def start(last: Tensor | None) -> Tensor:
        return nothing if last is None else -last

    def wear(rows: Rows, pattern: Tensor) -> Worn:
        x_adv = rows.project(rows.x + pattern)
        return Worn(x_adv, lambda grad: rows.follow(x_adv, grad).sum(0, keepdim=True))

    def step(pattern: Tensor, grad: Tensor, left: float) -> Tensor:
        return ball.project(ball.ascend(pattern, grad, length * left * ball.eps), nothing)

    return Pattern(start=start, wear=wear, step=step)
