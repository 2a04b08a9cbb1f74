"""Trains the surrogates of a trial: on the same patients, on others, or on a target's answers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch

from titer.assess.models import ModelSpec, build
from titer.assess.surrogate_plan import SurrogatePlan
from titer.assess.theft import Imitation, ask, questions
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import predicted, probabilities
from titer.core.protocols import TrainingData
from titer.core.randomness import derive, generator
from titer.core.record import Samples
from titer.core.threat import RANK
from titer.training.loop import Objective, fit
from titer.training.objectives import standard

_HELD_OUT = 0.2
_LEAST_ROWS = 10


def check_surrogates(trial: Trial) -> None:
    """Build every surrogate of the plan once; raise SpecError for what is wrong, before anything is written."""
    for one in trial.plan.surrogates:
        untrained(trial, one, trial.split.train)


def untrained(trial: Trial, one: SurrogatePlan, rows: Samples) -> Model:
    """Return a surrogate with weights drawn from its seed; `rows` are what it is trained on."""
    return build(
        one.spec(),
        trial.data,
        rows,
        folder=trial.plan.folder,
        seed=_seed(trial, one, "weights"),
        device=trial.device,
        where=f"surrogates.{one.label}",
    )


def owners(models: tuple[ModelSpec, ...], one: SurrogatePlan) -> tuple[tuple[ModelSpec, ...], ...]:
    """Return for each training of a surrogate the models that it is used against: a stolen copy is of one model."""
    return tuple((model,) for model in models) if one.stolen else (models,)


def surrogate(trial: Trial, one: SurrogatePlan, targets: tuple[ModelSpec, ...]) -> Defended:
    """Return a trained surrogate against these models of the plan, or the reason why there is none."""
    label = ", ".join(target.label for target in targets)
    try:
        data, objective, queries = _lessons(trial, one, targets[0])
    except Incompatible as reason:
        return Defended(model_label=label, label=one.name, model=None, reason=str(reason))
    model = untrained(trial, one, data.train)
    assert model.net is not None
    trained = fit(model, model.net, data, objective, seed=_seed(trial, one, "training", label if one.stolen else ""))
    own = {"surrogate": json.dumps(one.model_dump(), sort_keys=True), "queries": str(queries)}
    return Defended(model_label=label, label=one.name, model=replace(trained, provenance={**trained.provenance, **own}))


def learned_rows(trial: Trial, one: SurrogatePlan) -> int:
    """Return how many rows a surrogate learns from, at most."""
    if one.stolen:
        assert one.queries is not None
        return one.queries
    return len(trial.split.validation if one.data == "other-site" and one.group is None else trial.split.train)


def _seed(trial: Trial, one: SurrogatePlan, *what: str) -> int:
    return derive(trial.seed, "surrogate", one.label, *what)


def _lessons(trial: Trial, one: SurrogatePlan, target: ModelSpec) -> tuple[TrainingData, Objective, int]:
    """Return what a surrogate is trained on, its objective, and how many questions that took."""
    data = trial.training_data(one.recipe(trial.plan.training))
    if one.stolen:
        return _stolen(trial, one, target, data)
    if one.data == "other-site":
        own = _of_group(data.train, one) if one.group is not None else data.validation
        data = _divided(data, own, _seed(trial, one, "division"), f"{one.name} has")
    return data, standard(data), 0


def _of_group(part: Samples, one: SurrogatePlan) -> Samples:
    assert one.group is not None
    column = part.groups.get(one.group, ("unknown",) * len(part))
    return part.take([row for row, value in enumerate(column) if value in (one.values or ())])


def _divided(data: TrainingData, own: Samples, seed: int, whose: str) -> TrainingData:
    """Return the attacker's own rows as the training part, a fifth of the patients held out to stop it."""
    patients = sorted(set(own.patients))
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    held = {patients[i] for i in shuffled[: max(1, round(_HELD_OUT * len(patients)))]}
    learned = [row for row, patient in enumerate(own.patients) if patient not in held]
    stopping = [row for row, patient in enumerate(own.patients) if patient in held]
    if min(len(learned), _LEAST_ROWS * len(stopping)) < _LEAST_ROWS:
        raise Incompatible(f"{whose} {len(own)} rows of {len(patients)} patients to learn from: too few to train on")
    return replace(data, train=own.take(learned), validation=own.take(stopping))


def _stolen(
    trial: Trial, one: SurrogatePlan, target: ModelSpec, data: TrainingData
) -> tuple[TrainingData, Objective, int]:
    """Ask the undefended target, and return its answers as labels."""
    assert one.queries is not None
    victim = trial.base(target)
    known_by = Defended(model_label=target.label, label="none", model=victim).digest
    rng = generator(trial.seed, "surrogate", one.label, target.label)
    own = trial.split.validation.x
    x = questions(own, one.queries, trial.data.domain, rng=rng).to(trial.device)
    answers = ask(victim, x, one.answers, cache=trial.cache, known_by=known_by, rng=rng)
    told = min(one.answers, victim.access, key=RANK.__getitem__)
    soft = told == "scores" and victim.output != "value"
    y = probabilities(victim.output, answers) if soft else predicted(victim.output, answers)
    held = torch.randperm(len(x), generator=rng)[: max(1, round(_HELD_OUT * len(x)))]
    ids = tuple(f"question {row}" for row in range(len(x)))
    asked = Samples(x=x, y=y, ids=ids, patients=ids)
    stopping = set(held.tolist())
    parts = replace(
        data,
        train=asked.take([row for row in range(len(x)) if row not in stopping]),
        validation=asked.take(sorted(stopping)),
    )
    return parts, Imitation(output=victim.output) if soft else standard(parts), len(x)
