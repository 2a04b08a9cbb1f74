"""What an attack proposes for the threats of one cell: once, or from the smallest budget to the largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from titer.assess.cells import Cell
from titer.assess.judge import Prediction, Proposal, propose, reached, verdict
from titer.assess.trial import Trial
from titer.core.plugins import Guarded, make_attack
from titer.core.protocols import Attack
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Threat
from titer.engine.certificates import certified
from titer.engine.ensemble import Ensemble
from titer.engine.rows import LOOKS


def attempts(trial: Trial, cell: Cell, test: Samples, clean: Prediction) -> tuple[Proposal, ...]:
    """Return one proposal for each threat of the cell.

    A least-perturbation attack runs once, whatever the budget. An ensemble keeps what it found under a smaller
    budget, which a larger one allows too, and searches on for the others.

    Raises:
        Incompatible: the attack cannot run on this model or threat.
    """
    assert cell.attack is not None
    attack = make_attack(cell.attack.spec)
    if cell.attack.minimal:
        return (_attempt(trial, cell, cell.threats[-1], test, clean, attack),) * len(cell.threats)
    run = attack.run if isinstance(attack, Guarded) else attack
    if not isinstance(run, Ensemble):
        return tuple(_attempt(trial, cell, threat, test, clean, attack) for threat in cell.threats)
    before = _first(trial, cell, test, clean, run)
    found: list[Proposal] = []
    for threat in cell.threats:
        later = run.later if before is not None else attack
        found.append(_attempt(trial, cell, threat, test, clean, later, [*found[-1:], *([before] if before else [])]))
    return tuple(found)


def _first(trial: Trial, cell: Cell, test: Samples, clean: Prediction, ensemble: Ensemble) -> Proposal | None:
    """Return the finds of an ensemble's least-perturbation attack, held to the domain but to no budget."""
    assert cell.source.model is not None
    threat, model = cell.threats[-1], cell.source.model
    if ensemble.first is None or ensemble.first.needs.refused(ensemble.first.name, threat, model) is not None:
        return None
    wrong = reached(threat, clean, test.y)
    rng = generator(trial.seed, "first", cell.source.model_label, cell.source.label, threat.name)
    precision = trial.plan.precision
    return propose(ensemble.first, model, test.x, test.y, threat, wrong, minimal=True, rng=rng, precision=precision)


def _attempt(
    trial: Trial,
    cell: Cell,
    threat: Threat,
    test: Samples,
    clean: Prediction,
    attack: Attack,
    before: Sequence[Proposal] = (),
) -> Proposal:
    """Return the proposal under one threat; rows that one of `before` has won already keep theirs."""
    assert cell.attack is not None
    assert cell.source.model is not None
    label = (cell.source.model_label, cell.source.label, cell.attack.label, threat.name)
    wrong = reached(threat, clean, test.y)
    kept = [_won(trial, cell, threat, test, clean, one) & ~wrong for one in before]
    done = torch.stack([*kept, torch.zeros_like(wrong)]).any(0)
    safe = _certified(cell, threat, test) & ~done & ~wrong
    found = propose(
        attack,
        cell.source.model,
        test.x,
        test.y,
        threat,
        wrong | done | safe,
        minimal=cell.attack.minimal,
        rng=generator(trial.seed, "attack", *label),
        precision=trial.plan.precision,
    )
    found = replace(found, certified=safe)
    for one, rows in reversed(list(zip(before, kept, strict=True))):
        found = _joined(found, one, rows)
    return found


def _certified(cell: Cell, threat: Threat, test: Samples) -> Tensor:
    """Return bool[N]: rows that need no attack; where inputs are shown to other models too, each row needs one."""
    assert cell.attack is not None
    assert cell.source.model is not None
    if cell.attack.minimal or len(cell.targets) > 1 or threat.access != "gradient":
        return torch.zeros(len(test), dtype=torch.bool, device=test.x.device)
    return certified(cell.source.model, test.x, test.y, threat)


def _won(trial: Trial, cell: Cell, threat: Threat, test: Samples, clean: Prediction, found: Proposal) -> Tensor:
    """Return bool[N]: the find wins, and of a randomised model at every look, so that no search ends by luck."""
    assert cell.source.model is not None
    model, label = cell.source.model, (cell.source.model_label, cell.source.label, threat.name)
    won = found.attacked
    for look in range(1 if model.draw is None else LOOKS):
        rng = generator(trial.seed, "nested", *label, *([look] if look else []))
        won = won & verdict(model, test.x, test.y, clean, found, threat, minimal=True, rng=rng).won
    return won


def _joined(found: Proposal, before: Proposal, kept: Tensor) -> Proposal:
    """Return `found` with the rows `kept` bool[N] as they were under the smaller budget, their cost included."""
    rows = kept.nonzero().flatten()
    cpu = rows.cpu()
    return replace(
        found,
        x_adv=found.x_adv.index_copy(0, rows, before.x_adv[rows]),
        attacked=found.attacked | kept,
        put_back=found.put_back & ~kept,
        forwards=found.forwards.index_copy(0, cpu, before.forwards[cpu]),
        backwards=found.backwards.index_copy(0, cpu, before.backwards[cpu]),
    )
