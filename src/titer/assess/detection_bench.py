"""The detectors of one defended model at work: fitted, with thresholds, and attacked by who knows of them or not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from titer.assess.attempts import attempts
from titer.assess.cells import Cell
from titer.assess.judge import Prediction, predict, propose, reached, verdict
from titer.assess.plan import spec_text
from titer.assess.study_parts import studied_rows
from titer.assess.study_plans import TOGETHER, DetectionPlan, labels, unlabelled
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack, make_detector
from titer.core.protocols import Alarm
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Threat
from titer.engine.features import in_parts
from titer.engine.one_pass import sharing
from titer.engine.watching import Watch, calibrated, evading, excess, guarded, weighted
from titer.threats.balls import per_row
from titer.threats.unseen import unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """One detector, or several that are asked together: an input is held back where any of `watches` is raised."""

    label: str
    watches: tuple[Watch, ...]

    @property
    def threshold(self) -> float:
        """The score above which the alarm is raised; several together have theirs at 0."""
        return self.watches[0].threshold if len(self.watches) == 1 else 0.0

    def score(self, x: Tensor) -> Tensor:
        """Return float[N] for raw inputs x [N, ...]; a score that is no number is the loudest there is."""
        if len(self.watches) == 1:
            found = in_parts(self.watches[0].alarm.score, x)
        else:
            found = in_parts(lambda rows: excess(self.watches, rows, differentiable=False), x)
        return found.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What an attacker shows the model under one threat: inputs [N, ...], and where they fool it.

    `at_stake` bool[N] are the rows that the goal applies to and that the model gets right when clean; only these are
    attacked. `won` bool[N]: the model is fooled, noticed or not.
    """

    threat: Threat
    x: Tensor
    at_stake: Tensor
    won: Tensor
    attack_cpu_seconds: float = 0.0


class Bench:
    """Everything that the parts of one defended model share; each thing is made when first asked for."""

    def __init__(self, trial: Trial, source: Defended, table: DetectionPlan) -> None:
        assert source.model is not None
        self.trial, self.source, self.table = trial, source, table
        self.rows: Samples = studied_rows(trial, table.rows)
        self.specs = {
            label: unlabelled(spec) for label, spec in zip(labels(table.detectors), table.detectors, strict=True)
        }
        self._plain: dict[str, tuple[Attempt, ...]] = {}

    @cached_property
    def model(self) -> Model:
        """The defended model; detectors that are fitted on it look at an input in the pass that answers it."""
        assert self.source.model is not None
        return sharing(self.source.model)

    @cached_property
    def clean(self) -> Prediction:
        """The judge's predictions of the clean rows."""
        return predict(self.model, self.rows.x, rng=self._rng("judge", "clean"))

    @cached_property
    def alarms(self) -> dict[str, Alarm | Incompatible]:
        """Each detector fitted on the training part, or why it cannot be."""
        return {label: self._fitted(label) for label in self.specs}

    def _fitted(self, label: str) -> Alarm | Incompatible:
        data, spec = self.trial.training_data(self.trial.plan.training), self.specs[label]
        try:
            alarm = make_detector(unlabelled(spec))(self.model, data, rng=self._rng("detector", spec_text(spec)))
            alarm.score(self.rows.x[:1])
        except Incompatible as reason:
            return reason
        return replace(alarm, name=label)

    @cached_property
    def watchers(self) -> dict[str, Watcher | Incompatible]:
        """Each detector with its threshold, and all together; or why there is none."""
        found: dict[str, Watcher | Incompatible] = {label: self._watching(label, [label]) for label in self.specs}
        able = self.together
        if len(self.specs) > 1:
            found[TOGETHER] = self._watching(TOGETHER, able) if len(able) > 1 else _too_few(able)
        return found

    @property
    def together(self) -> list[str]:
        """Labels of the detectors that are asked together: those of the plan that work on this model."""
        chosen = self.table.together or tuple(self.specs)
        return [label for label in self.specs if label in chosen and isinstance(self.alarms[label], Alarm)]

    def watcher(self, label: str) -> Watcher:
        """Return one of the watchers; raise Incompatible where there is none."""
        found = self.watchers[label]
        if isinstance(found, Incompatible):
            raise found
        return found

    @property
    def able(self) -> tuple[Watcher, ...]:
        """The watchers that there are; raise Incompatible where there is none."""
        found = tuple(one for one in self.watchers.values() if isinstance(one, Watcher))
        if not found:
            raise next(one for one in self.watchers.values() if isinstance(one, Incompatible))
        return found

    def _watching(self, label: str, of: Sequence[str]) -> Watcher | Incompatible:
        clean = self.trial.split.validation.to(self.trial.device).x
        alarms = []
        for one in of:
            alarm = self.alarms[one]
            if isinstance(alarm, Incompatible):
                return alarm
            alarms.append(alarm)
        try:
            if self.table.combination == "weighted" and len(alarms) > 1:
                alarms = [replace(weighted(alarms, clean), name=label)]
            watches = calibrated(alarms, clean, self.table.false_positive_rate)
        except Incompatible as reason:
            return reason
        return Watcher(label=label, watches=watches)

    def plain(self, cell: Cell) -> tuple[Attempt, ...]:
        """Return what an attacker who does not know the detectors finds under each threat of the cell."""
        if cell.id not in self._plain:
            self._plain = {cell.id: self._found(cell)}  # one at a time: these are whole stacks of images
        return self._plain[cell.id]

    def _found(self, cell: Cell) -> tuple[Attempt, ...]:
        assert cell.attack is not None
        proposals = attempts(self.trial, cell, self.rows, self.clean)
        found = []
        for threat, proposal in zip(cell.threats, proposals, strict=True):
            judged = verdict(
                self.model, self.rows.x, self.rows.y, self.clean, proposal, threat,
                minimal=cell.attack.minimal, rng=self._rng("judge", cell.id, threat.name),
            )  # fmt: skip
            stake = self._at_stake(threat)
            won = judged.won & stake
            x = torch.where(per_row(won, proposal.x_adv), proposal.x_adv, self.rows.x)
            spent = proposal.attack_cpu_seconds
            found.append(Attempt(threat=threat, x=x, at_stake=stake, won=won, attack_cpu_seconds=spent))
        return tuple(found)

    def evading(self, cell: Cell, watcher: Watcher) -> Attempt:
        """Return what an attacker who knows the detectors gets to under the largest budget of the cell.

        He keeps what he found without looking at them wherever it goes unnoticed, and searches on for the other rows.
        """
        assert cell.attack is not None
        before, threat = self.plain(cell)[-1], cell.threats[-1]
        kept = before.won & ~raised(watcher, before.x)
        wanted = before.at_stake & ~kept
        proposal = propose(
            evading(make_attack(cell.attack.spec)),
            guarded(self.source.model or self.model, watcher.watches),
            self.rows.x,
            self.rows.y,
            unseen(threat, self.model.output),
            ~wanted,
            minimal=False,
            rng=self._rng("evading", cell.id, watcher.label),
            precision=self.trial.plan.precision,
        )
        judged = verdict(
            self.model, self.rows.x, self.rows.y, self.clean, proposal, threat,
            minimal=False, rng=self._rng("judge evading", cell.id, watcher.label),
        )  # fmt: skip
        return Attempt(
            threat=threat,
            x=torch.where(per_row(kept, before.x), before.x, proposal.x_adv),
            at_stake=before.at_stake,
            won=kept | (judged.won & wanted),
            attack_cpu_seconds=proposal.attack_cpu_seconds,
        )

    def _at_stake(self, threat: Threat) -> Tensor:
        return threat.goal.applies(self.rows.y) & ~reached(threat, self.clean, self.rows.y)

    def _rng(self, *names: str) -> torch.Generator:
        return generator(self.trial.seed, "detection", self.source.model_label, self.source.label, *names)


def _too_few(able: Sequence[str]) -> Incompatible:
    left = f"{able[0]} is the only detector" if able else "there is no detector"
    return Incompatible(f"{left} that works on this model: there is nothing to ask together")


def raised(watcher: Watcher, x: Tensor) -> Tensor:
    """Return bool[N]: the score of raw inputs x [N, ...] is above the threshold."""
    return ~(watcher.score(x) <= watcher.threshold)


def latency(model: Model, watcher: Watcher, x: Tensor, repeats: int) -> dict[str, Any]:
    """Return what one input x [1, ...] costs at batch 1: by the model alone, and with its detectors.

    Medians over `repeats` of wall milliseconds, alone and guarded in turn; CPU milliseconds are means. `ratio` is that
    of the wall medians.
    """
    rows = x[:1]
    spent: dict[str, list[float]] = {"alone": [], "guarded": []}
    cpu = dict.fromkeys(spent, 0.0)
    with torch.no_grad():
        for turn in range(repeats + 3):  # the first turns find their code and memory cold
            for kind, times in spent.items():
                fresh = rows.clone()  # another tensor, which no pass is remembered of
                began, used = time.perf_counter(), time.process_time()
                model.logits(fresh)
                if kind == "guarded":
                    raised(watcher, fresh)
                if turn >= 3:
                    times.append(1000 * (time.perf_counter() - began))
                    cpu[kind] += 1000 * (time.process_time() - used) / repeats
    wall = {kind: float(torch.tensor(times).median()) for kind, times in spent.items()}
    return {
        "alone_ms": wall["alone"],
        "guarded_ms": wall["guarded"],
        "alone_cpu_ms": cpu["alone"],
        "guarded_cpu_ms": cpu["guarded"],
        "ratio": wall["guarded"] / wall["alone"],
        "repeats": repeats,
    }
