"""What is right without attack, in the sense in which the attack is judged."""

from __future__ import annotations

import math
from dataclasses import replace

from titer.report.load import ANY_ERROR
from titer.report.numbers import Estimate, Numbers
from titer.report.study import WORST, Threat
from titer.report.tallies import Tallies

_TINY = 1e-9


def before(
    numbers: Numbers, tallies: Tallies, model: str, defense: str, threat: Threat, attack: str = WORST
) -> Estimate:
    """Return the share that is right without attack, of the rows and in the sense of the threat's goal.

    A model of several findings is right about the one finding that a goal hides or invents, and right about all of
    them elsewhere: the accuracy of the clean rows is not what such an attack takes away from. The mean is the
    `clean_mean` that statistics.json sets the attack against (`before_after`), where it has one.
    """
    whole, mean = numbers.clean(model, defense), numbers.clean_mean(model, defense, attack, threat.label)
    if threat.goal == ANY_ERROR or _same(mean, whole.mean):
        return stated(mean, whole)
    return stated(mean, tallies.right_before(model, defense, threat.label))


def stated(mean: float | None, counted: Estimate) -> Estimate:
    """Return the `mean` that the run's own tables state, with the interval that was counted where that holds it."""
    if mean is None or _same(mean, counted.mean):
        return counted
    if counted.low is not None and counted.high is not None and counted.low <= mean <= counted.high:
        return replace(counted, mean=mean)
    return Estimate(mean=mean)


def _same(one: float | None, two: float | None) -> bool:
    return one is not None and two is not None and math.isclose(one, two, abs_tol=_TINY)
