"""What is told of poisoned trainings: one entry a poison and defended model, with each share and each search."""

from __future__ import annotations

from dataclasses import dataclass

from titer.report.numbers import Estimate

_NOTABLE = 0.5
"""A success that at least every second input has, and half of which at least is the poison's doing, is told first."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """One search for the poisoned rows, and the model trained on what it left.

    Attributes:
        cleaner: its label in the plan.
        title: its name in words.
        found: share of the poisoned rows whose score is above that of 95 % of the untouched ones.
        auroc: chance that a poisoned row scores above an untouched one.
        removed: rows left out, mean over trials.
        caught: share of the poisoned rows that were left out.
        clean: accuracy without attack after training again.
        success: what the attacker has left of it.
        refused: why there was no search; empty where there was one.
    """

    cleaner: str
    title: str
    found: Estimate
    auroc: Estimate
    removed: float | None
    caught: Estimate
    clean: Estimate
    success: Estimate
    refused: str


@dataclass(frozen=True, slots=True)
class AtShare:
    """A training with one share of its rows poisoned.

    Attributes:
        share: of the training rows; `changed` of `rows` rows, means over trials.
        changed: mean over trials.
        rows: mean over trials.
        clean: accuracy without attack.
        lost: what accuracy without attack it costs, mean over trials of the differences.
        attacked: accuracy on the attacked class.
        success: share of the inputs that the attacker wants something of that are answered so.
        cleanings: the searches, in the plan's order.
    """

    share: float
    changed: float
    rows: float
    clean: Estimate
    lost: float | None
    attacked: Estimate
    success: Estimate
    cleanings: tuple[Cleaning, ...]

    @property
    def best(self) -> Cleaning | None:
        """The search that finds most, None where there is none."""
        able = [one for one in self.cleanings if one.found.mean is not None]
        return max(able, key=lambda one: one.found.mean or 0.0, default=None)


@dataclass(frozen=True, slots=True)
class Poison:
    """One poison against one defended model.

    Attributes:
        model: the base model.
        defense: label of its defence.
        label: of the poison in the plan.
        title: its name in words.
        paper: its source.
        ids: NIST and MITRE ids.
        settings: its settings as text.
        aim: `trigger`, `aimed` (a few inputs), `pair` (a whole class) or `any` (any error).
        target: the class that is wanted; empty where any error will do.
        source: the class that it is wanted for; empty for every other class.
        inputs: inputs that a success is a share of, mean over trials.
        clean: accuracy without attack of the model trained on untouched rows.
        attacked: its accuracy on the attacked class.
        success: how often it gives the wanted answer anyway.
        shares: the poisoned trainings, smallest share first.
        trials: trials measured.
    """

    model: str
    defense: str
    label: str
    title: str
    paper: str
    ids: tuple[str, ...]
    settings: str
    aim: str
    target: str
    source: str
    inputs: float
    clean: Estimate
    attacked: Estimate
    success: Estimate
    shares: tuple[AtShare, ...]
    trials: int

    def succeeds(self, at: AtShare) -> bool:
        """Whether the attacker gets what they want of most inputs, and most of that is the poison's doing."""
        reached, anyway = at.success.mean, self.success.mean
        return reached is not None and reached >= _NOTABLE and reached - (anyway or 0.0) >= _NOTABLE * reached

    @property
    def cheapest(self) -> AtShare | None:
        """The smallest share at which it succeeds."""
        return next((at for at in self.shares if self.succeeds(at)), None)
