"""Adversarial training: minimise the loss at the worst input that an attack finds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import errors, predicted
from titer.core.plugins import Count, Positive, defense, make_attack
from titer.core.protocols import Attack, Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits, Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.naming import highest_loss
from titer.training.loop import fit, fresh
from titer.training.objectives import Penalty, penalty

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
        threat = Threat(family=norm, budget=budget, domain=train.domain, goal=highest_loss(train.output))
        objective = WorstCase(inner=inner, spec=json.dumps(spec, sort_keys=True), threat=threat, penalty=penalty(train))
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate)
        start = model.net if warm_start else fresh(model.net, seed)
        return fit(model, start, replace(train, recipe=recipe), objective, seed=seed)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """The objective: the penalty at the attacked batch; scored by what is right under the same attack."""

    inner: Attack
    spec: str
    threat: Threat
    penalty: Penalty

    @property
    def key(self) -> str:
        """Return attack, threat, rules and what the penalty is weighed by."""
        scale = self.threat.budget.scaled(torch.zeros(1)).flatten().tolist()
        rules = [rule.describe() for rule in self.threat.domain]
        weights = None if self.penalty.weights is None else self.penalty.weights.tolist()
        kind = "" if self.penalty.output == "classes" else f"/{self.penalty.key}"
        return f"worst-case/{self.spec}/{self.threat.name}/{scale}/{rules}/{weights}{kind}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return the penalty at the attacked batch.

        The attack sees the network in evaluation mode, as a real one will: batch norm keeps its running statistics.
        """
        net.eval()
        x_adv = self.inner(self._model(logits), x, y, self.threat, rng=rng)
        net.train()
        return self.penalty(logits(x_adv), y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return how right the first validation rows are under attack, ties broken by the clean rows.

        Of classes, the robust accuracy: rows count by their class's weight, so that with balanced weights it is the
        balanced accuracy. Of any other output, 1 - the mean error: share of wrong findings, error in standard
        deviations, 1 - Dice.
        """
        x, y = part.x[:_SCORED_ROWS], part.y[:_SCORED_ROWS]
        classes = self.penalty.output == "classes"
        threat = replace(self.threat, goal=AnyError()) if classes else self.threat
        clean = self._right(logits, x, y)
        x_adv = self.inner(self._model(logits), x, y, threat, rng=rng)
        robust = torch.minimum(clean, self._right(logits, x_adv, y))
        weights = self.penalty.weights if classes else None
        share = torch.ones_like(clean) if weights is None else weights[y]
        return float((robust * share).sum() / share.sum()) + 1e-3 * float((clean * share).sum() / share.sum())

    def _model(self, logits: Logits) -> Model:
        return Model(name="in training", logits=logits, output=self.penalty.output)

    def _right(self, logits: Logits, x: Tensor, y: Tensor) -> Tensor:
        """Return 1 - the error of each row, float[N]; see `score` for its scale."""
        output = self.penalty.output
        with torch.no_grad():
            error = errors(output, predicted(output, logits(x)), y)
        return 1.0 - error / {"labels": y[0].numel(), "value": self.penalty.spread}.get(output, 1.0)
