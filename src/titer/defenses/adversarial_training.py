"""Adversarial training: minimise the loss at the worst input that an attack finds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, defense, make_attack
from titer.core.protocols import Attack, Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits, Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError, HighestLoss
from titer.training.loop import class_weights, fit, fresh

_SCORED_ROWS = 500


@defense(
    "adversarial-training",
    paper="Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083, eq. 2.1",
)
def adversarial_training(
    *,
    eps: Positive,
    unit: str,
    norm: Literal["linf", "l2", "l1"] = "linf",
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
        if model.net is None or model.rebuild is None:
            raise Incompatible(f"{model.name} has no network to train")
        if unit not in train.units:
            raise Incompatible(f"unit {unit!r} is not one of this data set's: {', '.join(train.units)}")
        seed = int(torch.randint(2**62, (1,), generator=rng))
        budget = ball(norm, eps, train.units[unit], unit)
        threat = Threat(family=norm, budget=budget, domain=train.domain, goal=HighestLoss())
        weights = class_weights(train.train.y, train.classes, train.recipe.class_weights)
        objective = WorstCase(inner=inner, spec=json.dumps(spec, sort_keys=True), threat=threat, weights=weights)
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate)
        start = model.net if warm_start else fresh(model.net, seed)
        return fit(model, start, replace(train, recipe=recipe), objective, seed=seed)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """The objective: cross-entropy at the attacked batch; scored by accuracy under the same attack."""

    inner: Attack
    spec: str
    threat: Threat
    weights: Tensor | None

    @property
    def key(self) -> str:
        """Return attack, threat, rules and class weights."""
        scale = self.threat.budget.scaled(torch.zeros(1)).flatten().tolist()
        rules = [rule.describe() for rule in self.threat.domain]
        weights = None if self.weights is None else self.weights.tolist()
        return f"worst-case/{self.spec}/{self.threat.name}/{scale}/{rules}/{weights}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return the cross-entropy at the attacked batch.

        The attack sees the network in evaluation mode, as a real one will: batch norm keeps its running statistics.
        """
        net.eval()
        x_adv = self.inner(Model(name="in training", logits=logits), x, y, self.threat, rng=rng)
        net.train()
        return functional.cross_entropy(logits(x_adv), y, weight=self.weights)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return the robust accuracy on the first validation rows, ties broken by clean accuracy.

        Rows count by their class's weight: with balanced weights it is the balanced accuracy.
        """
        x, y = part.x[:_SCORED_ROWS], part.y[:_SCORED_ROWS]
        model = Model(name="in training", logits=logits)
        with torch.no_grad():
            clean = logits(x).argmax(1) == y
        x_adv = self.inner(model, x, y, replace(self.threat, goal=AnyError()), rng=rng)
        with torch.no_grad():
            robust = clean & (logits(x_adv).argmax(1) == y)
        share = torch.ones_like(y, dtype=torch.float32) if self.weights is None else self.weights[y]
        return float((robust * share).sum() / share.sum()) + 1e-3 * float((clean * share).sum() / share.sum())
