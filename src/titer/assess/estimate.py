"""What a plan will cost, measured on a handful of rows before anything runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from titer.assess.estimated import fitted
from titer.assess.grid import count_cells
from titer.assess.models import ModelSpec, build, pretrained
from titer.assess.plan import AttackPlan, Plan, spec_text
from titer.assess.plan_checks import check_against
from titer.assess.pool import one_thread
from titer.assess.run import available_cores, check_device
from titer.assess.surrogate_plan import SurrogatePlan
from titer.assess.surrogates import learned_rows, owners, untrained
from titer.assess.transfer import transfer_cells
from titer.assess.trial import Defended, Trial, defense_of, forget_data, open_trial
from titer.core.errors import Incompatible
from titer.core.lexicon import embedding_of
from titer.core.model import Model
from titer.core.places import weights_cache
from titer.core.plugins import Guarded, make_attack
from titer.core.protocols import Attack, TrainingData
from titer.core.randomness import generator
from titer.core.record import Recipe, Samples
from titer.core.registry import Spec
from titer.core.threat import Threat
from titer.engine.ensemble import Ensemble
from titer.engine.fast import quick
from titer.engine.metering import Meter
from titer.threats.naming import highest_loss
from titer.training.loop import fit
from titer.training.objectives import standard

_ROWS = 32
_PACE_ROWS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """CPU seconds of a plan's trainings and attacks, at most: nothing leaves or stops early."""

    training: float
    attacks: float
    notes: tuple[str, ...]


def grid_text(plan: Plan, *, device: str = "cpu", workers: int | None = None) -> str:
    """Return the grid of a plan and what it will cost at most, as text for the console."""
    check_device(device)
    one_thread()
    forget_data()
    trial = open_trial(plan, 0, cache=weights_cache(), device=device)
    check_against(plan, trial.data)
    threats = [threat for family in plan.threats for threat in trial.threats(family)]
    cost = estimate(plan, trial)
    processes = workers or plan.workers or available_cores()
    total = cost.training + cost.attacks
    split = trial.split
    return "\n".join(
        [
            f"plan      {plan.name}: {plan.title}",
            f"data      {trial.data.title}: {len(split.train)} training, {len(split.validation)} validation, "
            f"{len(split.test)} test rows; classes {', '.join(trial.data.classes)}",
            f"trials    {plan.trials}",
            f"models    {', '.join(one.label for one in plan.models)}",
            f"defenses  {', '.join(one.name for one in plan.defenses)}",
            f"attacks   {', '.join(one.label for one in plan.attacks)}",
            f"threats   {', '.join(threat.name for threat in threats)}",
            *([f"transfer  {', '.join(one.name for one in plan.surrogates)}"] if plan.surrogates else []),
            f"cells     {count_cells(plan)}",
            f"cost      about {_minutes(total)} of CPU if nothing stops early: {_minutes(cost.training)} of training, "
            f"{_minutes(cost.attacks)} of attacks; about {_minutes(total / processes)} with {processes} processes",
            *_studies(plan),
            *(f"note      {note}" for note in cost.notes),
        ]
    )


def _studies(plan: Plan) -> list[str]:
    """Return what is asked besides attacks: its time depends on what the attacks find, and is not foreseen."""
    tables = {
        "certification": plan.certification,
        "detection": plan.detection,
        "explanation": plan.explanation,
        "transfer": plan.between,
        "poisoning": plan.poisoning,
    }
    asked = [
        f"{name} of {'every model' if table.defenses is None else ', '.join(table.defenses)} ({table.rows} rows)"
        for name, table in tables.items()
        if table is not None
    ]
    return [f"studies   {'; '.join(asked)}: not in the cost"] if asked else []


def estimate(plan: Plan, trial: Trial) -> Estimate:
    """Measure one small training of each kind and each attack's passes, and scale them to the plan."""
    training = attacks = 0.0
    notes: list[str] = []
    for spec in plan.models:
        began = time.process_time()
        chains: dict[str, Model | None] = {spec_text(()): _small_base(trial, spec, notes)}
        training += 0.0 if pretrained(spec) else (time.process_time() - began) * _scale(trial)
        for defense in plan.defenses:
            spent, model = _defended(trial, chains, defense.chain, notes)
            training += spent
            if model is not None:
                model = model if spec.endpoint is None else _silent(model, trial)
                passes = sum(_passes(attack, model, trial, notes) for attack in plan.attacks)
                attacks += _seconds_per_pass(model, trial) * passes
                if spec.endpoint is not None:
                    notes.append(f"{spec.label}, {defense.name}: at most {passes:.0f} queries a trial for the attacks")
    for one in plan.surrogates:
        learning, searching = _surrogate(trial, one, notes)
        training, attacks = training + learning, attacks + searching
    return Estimate(training=training * plan.trials, attacks=attacks * plan.trials, notes=tuple(dict.fromkeys(notes)))


def _surrogate(trial: Trial, one: SurrogatePlan, notes: list[str]) -> tuple[float, float]:
    """Return CPU seconds of one surrogate's training and of the attacks on it, over all its copies."""
    data = _small(trial, one.recipe(trial.plan.training))
    began = time.process_time()
    model = untrained(trial, one, data.train)
    assert model.net is not None
    model = fit(model, model.net, data, standard(data), seed=0)
    learning = (time.process_time() - began) * learned_rows(trial, one) / len(data.train)
    source = Defended(model_label="", label=one.name, model=model)
    passes: dict[tuple[str, str], float] = {}
    searching = 0.0
    for cell in transfer_cells(trial, one, source, (source,)):
        assert cell.attack is not None
        key = (cell.attack.label, cell.threats[-1].family)
        if cell.source.model is None:
            notes.append(f"will be skipped: {cell.source.reason}")
        elif key not in passes:
            passes[key] = _passes_per_row(cell.attack, model, trial, cell.rehearsed[-1], notes)
        searching += passes.get(key, 0.0)
    copies = len(owners(trial.plan.models, one))
    if one.stolen:
        notes.append(f"{one.name}: {one.queries} questions to each model a trial")
    return copies * learning, copies * searching * len(trial.split.test) * _seconds_per_pass(model, trial)


def _small(trial: Trial, recipe: Recipe | None = None) -> TrainingData:
    data = trial.training_data(replace(recipe or trial.plan.training, batch_size=_ROWS, patience=10**6))
    rows = _of_every_class(data.train, min(_ROWS, len(data.train)))
    return replace(data, train=data.train.take(rows), validation=data.validation.take([0, 1]), cache=None)


def _of_every_class(part: Samples, count: int) -> list[int]:
    """Return `count` rows that have the part's own mix of classes, in its order of rows."""
    if part.y.dim() != 1:
        return list(range(count))
    order = torch.argsort(part.y.cpu(), stable=True)
    return sorted(order[torch.linspace(0, len(order) - 1, count).round().long()].tolist())


def _scale(trial: Trial) -> float:
    return len(trial.split.train) / min(_ROWS, len(trial.split.train))


def _silent(model: Model, trial: Trial) -> Model:
    """Return a model that answers as a remote one without asking it: a dry run spends none of its queries."""
    classes = len(trial.data.classes)
    return replace(model, logits=lambda x: x.new_zeros((len(x), classes)), draw=None, surrogate=None)


def _small_base(trial: Trial, spec: ModelSpec, notes: list[str]) -> Model | None:
    """Return the base model, trained on a handful of rows where it comes without weights; None where it fails."""
    if spec.estimator is not None:
        return fitted(spec, _small(trial), seed=0)
    try:
        model = build(
            spec, trial.data, trial.split.train, folder=trial.plan.folder, seed=0, device=trial.device,
            where=f"models.{spec.label}",
        )  # fmt: skip
    except Incompatible as reason:
        notes.append(f"{spec.label} cannot be assessed now: {reason}")
        return None
    return (
        model
        if model.net is None or pretrained(spec)
        else fit(model, model.net, _small(trial), standard(_small(trial)), seed=0)
    )


def _defended(
    trial: Trial, chains: dict[str, Model | None], chain: tuple[Spec, ...], notes: list[str]
) -> tuple[float, Model | None]:
    """Return CPU seconds of the links not measured yet, and the model behind the chain or None."""
    spent = 0.0
    for length in range(1, len(chain) + 1):
        key = spec_text(chain[:length])
        before = chains[spec_text(chain[: length - 1])]
        if key in chains or before is None:
            chains.setdefault(key, None)
            continue
        began = time.process_time()
        try:
            chains[key] = defense_of(chain[length - 1], trial.data)(before, _small(trial), rng=generator(0))
        except Incompatible as reason:
            notes.append(f"will be skipped: {reason}")
            chains[key] = None
        spent += (time.process_time() - began) * _scale(trial)
    return spent, chains[spec_text(chain)]


def _seconds_per_pass(model: Model, trial: Trial) -> float:
    """Return CPU seconds of one forward and one backward pass of one row; forwards only without gradients."""
    x = trial.split.test.x[:_PACE_ROWS].to(trial.device)
    model = quick(model, x, trial.plan.precision)
    spent = []
    for _ in range(3):
        began = time.process_time()
        if model.access == "gradient" and embedding_of(model.net) is None:
            model.grad(lambda logits: logits[:, 0], x, rng=generator(0))
        else:
            with torch.no_grad():
                model.logits(x)
        spent.append(time.process_time() - began)
    return float(np.median(spent)) / len(x)


def _passes(attack: AttackPlan, model: Model, trial: Trial, notes: list[str]) -> float:
    """Return the passes of one attack over the whole test part and every threat, no row leaving early."""
    total = 0.0
    for family in trial.plan.threats:
        threats = trial.threats(family)
        one = _passes_per_row(attack, model, trial, threats[-1], notes)
        total += one * len(trial.split.test) * (1 if attack.minimal else len(threats))
    return total


def _passes_per_row(attack: AttackPlan, model: Model, trial: Trial, threat: Threat, notes: list[str]) -> float:
    x = trial.split.test.x[:_ROWS].to(trial.device)
    y = trial.split.test.y[:_ROWS].to(trial.device)
    meter = Meter(len(x))
    try:
        for search, aim in _searches(attack, threat, model):
            search(meter.watch(model.limited(threat.access)), x, y, aim, rng=generator(0))
    except Incompatible as reason:
        notes.append(f"{attack.label} will be skipped: {reason}")
        return 0.0
    return float(torch.maximum(meter.forwards, meter.backwards).mean())


def _searches(attack: AttackPlan, threat: Threat, model: Model) -> list[tuple[Attack, Threat]]:
    """Return what is run once, and what it aims at: a goal out of reach, so that no row leaves early.

    A least-perturbation attack has no budget to use up and needs its own goal, inside an ensemble too.
    """
    made, endless = make_attack(attack.spec), replace(threat, goal=highest_loss(model.output))
    run = made.run if isinstance(made, Guarded) else made
    if isinstance(run, Ensemble) and run.first is not None and run.first.needs.refused("", threat, model) is None:
        return [(run.first, threat), (run.later, endless)]
    return [(made, threat if attack.minimal else endless)]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
