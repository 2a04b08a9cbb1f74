"""The grid of a plan, and one worker's share of it: train a chain of defences, or run all cells of one source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from titer.assess.cells import FORMAT_VERSION, Cell, CellStore
from titer.assess.plan import AttackPlan, Plan, ThreatPlan, spec_text
from titer.assess.runner import Runner
from titer.assess.sanity import PROBES, longest_search, probe
from titer.assess.surrogates import owners, surrogate
from titer.assess.transfer import count_transfer_cells, record, transfer_cells
from titer.assess.trial import Defended, Trial, defended
from titer.core.errors import FAILED, Incompatible


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A worker's share: `train` one chain of defences, or run the `cells` of one source.

    With `surrogate`, the number of one in the plan, it is that one's share, against the models of its `model`th owner.
    """

    kind: Literal["train", "cells"]
    trial: int
    model: int
    defense: int
    depth: int
    surrogate: int | None = None

    def describe(self, plan: Plan) -> str:
        """Return what is running, for the progress line."""
        verb = "training" if self.kind == "train" else "attacking"
        if self.surrogate is not None:
            return f"trial {self.trial + 1}: {verb} {plan.surrogates[self.surrogate].name}"
        if self.kind == "train" and not self.depth:
            return f"trial {self.trial + 1}: training {plan.models[self.model].label}"
        return f"trial {self.trial + 1}: {verb} {plan.models[self.model].label}, {plan.defenses[self.defense].name}"


def tasks(plan: Plan) -> list[list[Task]]:
    """Return the stages of a plan; tasks of one stage do not wait for each other.

    Chains are trained by length, each shared beginning once; attacks come when every model of the trials is there.
    """
    stages: dict[int, dict[tuple[int, int, str], Task]] = {}
    for task in _surrogate_tasks(plan, "train"):
        stages.setdefault(task.depth, {})[task.trial, task.model, f"surrogate {task.surrogate}"] = task
    for trial in range(plan.trials):
        for m in range(len(plan.models)):
            for d, defense in enumerate(plan.defenses):
                for depth in range(len(defense.chain) + 1):
                    chain = spec_text(defense.chain[:depth])
                    task = Task(kind="train", trial=trial, model=m, defense=d, depth=depth)
                    stages.setdefault(depth, {}).setdefault((trial, m, chain), task)
    attacks = [
        Task(kind="cells", trial=t, model=m, defense=d, depth=0)
        for t in range(plan.trials)
        for m in range(len(plan.models))
        for d in range(len(plan.defenses))
    ]
    return [
        *(list(stages[depth].values()) for depth in sorted(stages)),
        [*attacks, *_surrogate_tasks(plan, "cells")],
    ]


def _surrogate_tasks(plan: Plan, kind: Literal["train", "cells"]) -> list[Task]:
    """Return the tasks of the surrogates; one that is stolen waits for its target, which is trained first."""
    return [
        Task(kind=kind, trial=trial, model=owner, defense=0, depth=int(one.stolen), surrogate=number)
        for trial in range(plan.trials)
        for number, one in enumerate(plan.surrogates)
        for owner in range(len(owners(plan.models, one)))
    ]


def cells_of(trial: Trial, source: Defended, everyone: tuple[Defended, ...]) -> Iterator[Cell]:
    """Yield the cells of one source in the plan's order: its clean rows, then attack by attack.

    Inputs found on the undefended model, or on each one, are shown to every other defended model of the same base as
    well (the attacker does not adapt).
    """
    yield Cell(trial=trial, attack=None, threats=(), source=source, targets=(source,))
    others = tuple(one for one in everyone if one.label != source.label and one.model is not None)
    lent = {"none": False, "undefended": source.label == everyone[0].label, "all": True}[trial.plan.transfer]
    targets = (source, *others) if lent else (source,)
    for attack in trial.plan.attacks:
        for family in trial.plan.threats:
            yield from _family_cells(trial, attack, family, source, targets)


def _family_cells(
    trial: Trial, attack: AttackPlan, family: ThreatPlan, source: Defended, targets: tuple[Defended, ...]
) -> Iterator[Cell]:
    threats = trial.threats(family)
    for group in [threats] if attack.whole_family else [(threat,) for threat in threats]:
        yield Cell(trial=trial, attack=attack, threats=group, source=source, targets=targets)


def count_cells(plan: Plan) -> int:
    """Return how many cells a plan has."""
    attacks = sum(
        len(plan.threats) if attack.whole_family else sum(len(threat.eps) for threat in plan.threats)
        for attack in plan.attacks
    )
    return plan.trials * len(plan.models) * len(plan.defenses) * (attacks + 1) + count_transfer_cells(plan)


def count_steps(plan: Plan) -> int:
    """Return how many steps the progress counts: every cell, and every chain of defences and surrogate trained."""
    return count_cells(plan) + sum(len(stage) for stage in tasks(plan)[:-1])


def lineup(trial: Trial, model: int) -> tuple[Defended, ...]:
    """Return every defended model of one base model, the undefended one first."""
    return tuple(defended(trial, trial.plan.models[model], plan) for plan in trial.plan.defenses)


def run_cells(trial: Trial, task: Task, store: CellStore, done: Callable[[str], None]) -> list[str]:
    """Run every cell of one source that is not done yet; return all their ids in the plan's order."""
    runner = Runner(trial, store)
    if task.surrogate is not None:
        return _run_transfer(task, runner, done)
    everyone = lineup(trial, task.model)
    return _run(cells_of(trial, everyone[task.defense], everyone), runner, done)


def _run_transfer(task: Task, runner: Runner, done: Callable[[str], None]) -> list[str]:
    """Run the cells of one surrogate, and keep what it is."""
    trial, plan = runner.trial, runner.trial.plan
    assert task.surrogate is not None
    one = plan.surrogates[task.surrogate]
    against = owners(plan.models, one)[task.model]
    everyone = (each for spec in against for each in lineup(trial, plan.models.index(spec)))
    targets = tuple(each for each in everyone if each.model is not None)
    source = surrogate(trial, one, against)
    if not targets:
        source = replace(source, model=None, reason="none of the models that it would be shown to could be made")
    ids = _run(transfer_cells(trial, one, source, targets), runner, done)
    kept = record(one, source, targets, runner)
    return ids if kept is None else [*ids, kept]


def _run(cells: Iterator[Cell], runner: Runner, done: Callable[[str], None]) -> list[str]:
    ids = []
    for cell in cells:
        ids.append(cell.id)
        if not _settled(runner.store.note(cell.id)):
            runner.run(cell)
        done("none" if cell.attack is None else f"{cell.attack.label}, {cell.threats[-1].name}")
    return ids


def _settled(note: dict[str, Any] | None) -> bool:
    """Return whether a cell need not run again; one that a remote model failed is tried anew by every call."""
    if note is None:
        return False
    reasons = [note.get("skipped"), *(check["message"] for check in note.get("checks") or [])]
    return not any(str(reason).startswith(FAILED) for reason in reasons)


def train(trial: Trial, task: Task) -> None:
    """Train one chain of defences, or one surrogate, into the cache."""
    plan = trial.plan
    if task.surrogate is not None:
        one = plan.surrogates[task.surrogate]
        surrogate(trial, one, owners(plan.models, one)[task.model])
        return
    try:
        trial.defended(plan.models[task.model], plan.defenses[task.defense].chain[: task.depth])
    except Incompatible:
        return  # the cells of this defence carry the reason


def probe_source(trial: Trial, model: int, defense: int, store: CellStore) -> list[str]:
    """Probe one defended model for every family of threats (see `sanity`); return the ids of the notes."""
    one = defended(trial, trial.plan.models[model], trial.plan.defenses[defense])
    ids: list[str] = []
    if one.model is None:
        return ids
    usual = longest_search(attack.spec for attack in trial.plan.attacks if not attack.minimal)
    spec = {"name": "sanity", "version": 2, "probes": sorted(PROBES), "usual": usual}
    for family in trial.plan.threats:
        threat = trial.threats(family)[-1]
        cell = Cell(
            trial=trial,
            attack=AttackPlan(label="sanity", spec=spec, minimal=False),
            threats=(threat,),
            source=one,
            targets=(one,),
        )
        ids.append(cell.id)
        if not _settled(store.note(cell.id)):
            test = trial.split.test.to(trial.device)
            checks = probe(one.model, test.x, test.y, threat, seed=trial.seed, usual=usual)
            labels = {"model": one.model_label, "defense": one.label}
            store.save(cell.id, {"format_version": FORMAT_VERSION, "checks": [labels | check for check in checks]})
    return ids
