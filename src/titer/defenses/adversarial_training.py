"""Adversarial training: minimise the loss at the worst input that an attack finds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Generator

from titer.core.model import Model
from titer.core.plugins import Count, Positive, defense, make_attack
from titer.core.protocols import Defense, TrainingData
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import penalty
from titer.training.worst_case import WorstCase, threat_in_training, trainable


@defense(
    "adversarial-training",
    paper="Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083, eq. 2.1",
    words=True,
)
def adversarial_training(
    *,
    eps: Positive,
    unit: str,
    norm: Literal["linf", "l2", "l1", "l0"] = "linf",
    attack: str | dict[str, Any] = "pgd",
    epochs: Count = 20,
    learning_rate: Positive = 1e-3,
    warm_start: bool = True,
) -> Defense:
    """Adversarial training.

    Args:
        eps: budget of the attack inside, in `unit`.
        unit: one of the data set's units.
        norm: the budget's norm.
        attack: any registered attack by its spec; plain `pgd` means 7 steps of a quarter of the budget.
        epochs: passes over the training part, at most; stopped early on robust validation accuracy.
        learning_rate: peak of the one-cycle schedule.
        warm_start: begin at the undefended model's weights; False draws them anew.
    """
    spec: Mapping[str, Any] | str = {"name": "pgd", "steps": 7, "step": 0.25} if attack == "pgd" else attack
    inner = make_attack(spec, "defenses.adversarial-training.attack")

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        net = trainable(model)
        threat = threat_in_training(train, norm=norm, eps=eps, unit=unit)
        seed = int(torch.randint(2**62, (1,), generator=rng))
        objective = WorstCase(inner=inner, spec=json.dumps(spec, sort_keys=True), threat=threat, penalty=penalty(train))
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate)
        before, start = (model, net) if warm_start else (anew(model), fresh(net, seed))
        return fit(before, start, replace(train, recipe=recipe), objective, seed=seed)

    return run
