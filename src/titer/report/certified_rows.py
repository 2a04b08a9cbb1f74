"""What is told of certificates: one entry a defence and certifier, its curve, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from titer.report.numbers import Estimate


@dataclass(frozen=True, slots=True)
class AtBudget:
    """The certified rows at one budget, as shares of the same rows.

    Attributes:
        threat: label of the threat.
        eps: the budget.
        proven: what the attacker wants is proven impossible within the budget: a lower bound of robust accuracy.
        withstood: no attack of the run that knew the defence succeeded: an upper bound of it.
        neither: withstood, and not proven: nobody knows. Both are unknown of a model that was not attacked.
    """

    threat: str
    eps: float
    proven: Estimate
    withstood: Estimate
    neither: Estimate


@dataclass(frozen=True, slots=True)
class CertifiedCurve:
    """Certified accuracy against the radius: `shares` of the rows reach each of `radii`; `low`, `high` their 95 % band.

    Behind a radius the share falls; it never rises.
    """

    radii: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Median:
    """A median radius with its 95 % interval; `capped` where it is as long as any that was looked for."""

    value: float | None
    low: float | None
    high: float | None
    capped: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one certifier proves of one defended model under one threat family.

    Attributes:
        model: the base model.
        family: the threat family.
        defense: label of the defence; `defense_title` is its name.
        defense_title: its name in words.
        certifier: label of the certifier in the plan; `title` is its name.
        title: its name in words.
        about: `model` for a proof of the model that was attacked, `smoothed` for its answer over many draws, `another`
            for a noisy version of the model that nobody attacked.
        confidence: 1 for a proof; else each certificate holds with this probability at least.
        goal: the attacker's goal.
        rows: rows of a trial that the goal is about.
        trials: trials certified.
        budgets: what is proven, withstood and neither at each budget of the plan.
        curve: certified accuracy against the radius.
        median_radius: over the rows that are right.
        abstained: share of rows that get no answer, as none is clear enough.
        cpu_seconds_per_row: mean over trials.
        samples_per_row: noisy copies of a row that the model is asked about; None for a proof.
    """

    model: str
    family: str
    defense: str
    defense_title: str
    certifier: str
    title: str
    about: str
    confidence: float
    goal: str
    rows: int
    trials: int
    budgets: tuple[AtBudget, ...]
    curve: CertifiedCurve
    median_radius: Median
    abstained: Estimate
    cpu_seconds_per_row: float
    samples_per_row: int | None

    @property
    def proves(self) -> bool:
        """Whether any row has a radius above 0."""
        return len(self.curve.shares) > 1 and self.curve.shares[1] > 0

    @property
    def reach(self) -> float:
        """Mean radius over all rows, 0 for those that are wrong: the area under the curve."""
        return sum(
            share * (after - before)
            for share, (before, after) in zip(self.curve.shares[1:], pairwise(self.curve.radii), strict=True)
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """What one certifier could not certify for one reason: defences, threat families, and how many `parts` in all."""

    certifier: str
    reason: str
    defenses: tuple[str, ...]
    families: tuple[str, ...]
    parts: int
