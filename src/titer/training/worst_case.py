"""Training against an attacker: the threat inside the training, and the loss and the score at the attacked input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.lexicon import embedding_of
from titer.core.model import Model
from titer.core.outputs import errors, predicted
from titer.core.protocols import Attack, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits, Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.naming import highest_loss
from titer.training.objectives import Penalty

SCORED_ROWS = 500
"""Validation rows that an epoch is scored on: an attack on all of them would cost as much as the epoch."""


def trainable(model: Model) -> nn.Module:
    """Return the network behind a model; Incompatible where there is none, or none that could be put back."""
    if model.net is None or model.rebuild is None:
        raise Incompatible(f"{model.name} has no network to train")
    return model.net


def threat_in_training(train: TrainingData, *, norm: str, eps: float, unit: str) -> Threat:
    """Return the threat that a training defends against: the data's own rules, and the loss that is trained.

    Raises:
        Incompatible: the data set has no such unit.
    """
    if unit not in train.units:
        raise Incompatible(f"unit {unit!r} is not one of this data set's: {', '.join(train.units)}")
    budget = ball(norm, eps, train.units[unit], unit)
    return Threat(family=norm, budget=budget, domain=train.domain, goal=highest_loss(train.output))


def in_training(logits: Logits, penalty: Penalty, net: nn.Module | None = None) -> Model:
    """Return the model in training as an attack sees it; one on words looks into `net`, where its gradient stops."""
    seen = None if embedding_of(net) is None else net
    return Model(name="in training", logits=logits, output=penalty.output, net=seen)


def rightness(penalty: Penalty, logits: Tensor, y: Tensor) -> Tensor:
    """Return 1 - the error of each row, float[N].

    Of classes 1 or 0, of findings the share that is right, of a value 1 - the error in standard deviations, of a mask
    the Dice.
    """
    error = errors(penalty.output, predicted(penalty.output, logits), y)
    return 1.0 - error / {"labels": y[0].numel(), "value": penalty.spread}.get(penalty.output, 1.0)


def threat_key(threat: Threat, penalty: Penalty) -> str:
    """Return threat, rules and what the penalty is weighed by, as they stand in the key of trained weights."""
    scale = threat.budget.scaled(torch.zeros(1)).flatten().tolist()
    rules = [rule.describe() for rule in threat.domain]
    weights = None if penalty.weights is None else penalty.weights.tolist()
    kind = "" if penalty.output == "classes" else f"/{penalty.key}"
    return f"{threat.name}/{scale}/{rules}/{weights}{kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """The objective: the penalty at the attacked batch; scored by what is right under the same attack."""

    inner: Attack
    spec: str
    threat: Threat
    penalty: Penalty
    scored_rows: int = SCORED_ROWS

    @property
    def key(self) -> str:
        """Return attack, threat, rules and what the penalty is weighed by."""
        rows = "" if self.scored_rows == SCORED_ROWS else f"/{self.scored_rows} rows"
        return f"worst-case/{self.spec}/{threat_key(self.threat, self.penalty)}{rows}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return the penalty at the attacked batch.

        The attack sees the network in evaluation mode, as a real one will: batch norm keeps its running statistics.
        """
        net.eval()
        x_adv = self.inner(in_training(logits, self.penalty, net), x, y, self.threat, rng=rng)
        net.train()
        return self.penalty(logits(x_adv), y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return how right the first validation rows are under attack, ties broken by the clean rows.

        Of classes, the robust accuracy: rows count by their class's weight, so that with balanced weights it is the
        balanced accuracy. Of any other output, 1 - the mean error: share of wrong findings, error in standard
        deviations, 1 - Dice.
        """
        x, y = part.x[: self.scored_rows], part.y[: self.scored_rows]
        classes = self.penalty.output == "classes"
        threat = replace(self.threat, goal=AnyError()) if classes else self.threat
        clean = self._right(logits, x, y)
        x_adv = self.inner(in_training(logits, self.penalty, net), x, y, threat, rng=rng)
        robust = torch.minimum(clean, self._right(logits, x_adv, y))
        weights = self.penalty.weights if classes else None
        share = torch.ones_like(clean) if weights is None else weights[y]
        return float((robust * share).sum() / share.sum()) + 1e-3 * float((clean * share).sum() / share.sum())

    def _right(self, logits: Logits, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return rightness(self.penalty, logits(x), y)
