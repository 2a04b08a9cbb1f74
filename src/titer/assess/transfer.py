"""Transfer: inputs found on a surrogate, which the attacker owns, shown to the models of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from titer.assess.cells import FORMAT_VERSION, Cell
from titer.assess.plan import AttackPlan, Plan, ThreatPlan
from titer.assess.plan_checks import NO_DEFENSE
from titer.assess.runner import Runner
from titer.assess.surrogate_plan import SurrogatePlan
from titer.assess.surrogates import owners
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.outputs import wrong
from titer.core.plugins import plugin
from titer.core.threat import RANK, Goal, Threat

_INSTEAD = "apgd"


@dataclass(frozen=True, slots=True)
class Unending:
    """A goal that is never reached: the search goes on to the budget's end.

    An input that has just crossed a surrogate's boundary rarely crosses the target's: on chest X-rays the inputs of
    pgd fooled four times as many patients where the search did not stop at its first success.
    """

    goal: Goal

    @property
    def name(self) -> str:
        """The goal's own name."""
        return self.goal.name

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the goal's loss, float[N]."""
        return self.goal.loss(logits, y)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the goal's margin, float[N]."""
        return self.goal.margin(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return bool[N], all False."""
        return torch.zeros_like(self.goal.won(logits, y))

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N]: rows on which the goal makes sense."""
        return self.goal.applies(y)


def transfer_cells(trial: Trial, one: SurrogatePlan, source: Defended, targets: tuple[Defended, ...]) -> Iterator[Cell]:
    """Yield the cells of one surrogate in the plan's order.

    The attacker owns the surrogate and sees all of it, whatever the threat shows of the target.
    """
    for attack in trial.plan.attacks:
        chosen = searching(attack)
        for family in trial.plan.threats:
            allowed = _allowed(one, source, family)
            for threats in _groups(trial.threats(family), chosen):
                practice = tuple(rehearsed(chosen, threat) for threat in threats)
                yield Cell(
                    trial=trial, attack=chosen, threats=threats, source=allowed, targets=targets, rehearsed=practice
                )


def _groups(threats: tuple[Threat, ...], attack: AttackPlan) -> list[tuple[Threat, ...]]:
    return [threats] if attack.whole_family else [(threat,) for threat in threats]


def searching(attack: AttackPlan) -> AttackPlan:
    """Return the attack itself; in the place of an ensemble its auto-PGD.

    An ensemble's strength is the union over its attacks, which takes the target's verdict on each of them.
    """
    if not attack.nested:
        return attack
    steps = {"steps": attack.spec["steps"]} if "steps" in attack.spec else {}
    settings = plugin("attacks", _INSTEAD).check(steps, "attacks")
    return replace(attack, spec={"name": _INSTEAD, **settings}, nested=False)


def rehearsed(attack: AttackPlan, threat: Threat) -> Threat:
    """Return the threat as the attacker searches under it on a model of their own: all seen, and no end at a win."""
    threat = replace(threat, access="gradient")
    # A least-perturbation attack has to stop somewhere, and one pattern for all rows never leaves a row early.
    if attack.minimal or "joint" in plugin("attacks", attack.spec).traits:
        return threat
    return replace(threat, goal=Unending(threat.goal))


def _allowed(one: SurrogatePlan, source: Defended, family: ThreatPlan) -> Defended:
    """Return the surrogate, or why this attacker cannot have it."""
    if source.model is None or not one.stolen or RANK[one.answers] <= RANK[family.access]:
        return source
    reason = f"{one.name} was copied from scores, and this attacker sees no more than a {family.access}"
    return replace(source, model=None, reason=reason)


def count_transfer_cells(plan: Plan) -> int:
    """Return how many cells the surrogates of a plan have."""
    attacks = sum(
        1 if searching(attack).whole_family else len(threat.eps) for attack in plan.attacks for threat in plan.threats
    )
    return plan.trials * attacks * sum(len(owners(plan.models, one)) for one in plan.surrogates)


def record(one: SurrogatePlan, source: Defended, targets: tuple[Defended, ...], runner: Runner) -> str | None:
    """Keep what the surrogate is and how often it decides as each undefended target does; return the note's id."""
    spec = AttackPlan(label="surrogate", spec={"name": "surrogate", "version": 1}, minimal=False)
    cell = Cell(trial=runner.trial, attack=spec, threats=(), source=source, targets=targets)
    if source.model is None:
        return None  # its cells carry the reason
    if runner.store.note(cell.id) is None:
        try:
            agreement = _agreement(source, targets, runner)
        except Incompatible:
            return None  # a remote target that does not answer fails its own cells
        told = {
            "surrogate": source.label,
            "trial": runner.trial.number,
            "data": one.data,
            "queries": int(source.model.provenance["queries"]),
            "sha256": source.model.provenance.get("weights", ""),
            "agreement": agreement,
        }
        runner.store.save(cell.id, {"format_version": FORMAT_VERSION, "checks": [], "surrogate": told})
    return cell.id


def _agreement(source: Defended, targets: tuple[Defended, ...], runner: Runner) -> dict[str, float]:
    """Return for each model of the plan the share of test rows on which the surrogate decides as it does undefended."""
    own, tolerance = runner.clean(source), runner.trial.data.tolerance
    theirs = {one.model_label: runner.clean(one) for one in targets if one.label == NO_DEFENSE}
    return {
        label: 1 - float(wrong(own.output, own.reported, there.reported, tolerance=tolerance).float().mean())
        for label, there in theirs.items()
    }
