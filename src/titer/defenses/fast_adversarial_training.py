"""Fast adversarial training: one noisy step a batch, watched by a longer attack for catastrophic overfitting."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from titer.core.model import Model
from titer.core.noise import Noise
from titer.core.plugins import Count, Natural, Positive, defense, make_attack
from titer.core.protocols import Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.threats.rounding import relaxed, settled
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import penalty
from titer.training.worst_case import WorstCase, threat_in_training, trainable

_WATCHED_ROWS = 200


@defense(
    "fast-adversarial-training",
    paper="de Jorge, Bibi, Volpi, Sanyal, Torr, Rogez, Dokania 2022, arXiv:2202.01181, algorithm 1",
)
def fast_adversarial_training(
    *,
    eps: Positive,
    unit: str,
    norm: Literal["linf", "l2", "l1"] = "linf",
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0,
    step: Positive = 1.0,
    guard_steps: Natural = 5,
    epochs: Count = 8,
    patience: Count = 4,
    learning_rate: Positive = 1e-3,
    warm_start: bool = True,
) -> Defense:
    """Fast adversarial training (N-FGSM).

    Args:
        eps: budget to defend against, in `unit`.
        unit: one of the data set's units.
        norm: the budget's norm.
        noise: radius of the noise that the step begins at, in budgets; 0 is plain FGSM training.
        step: length of the one step, in budgets; noise and step together may leave the budget, and are not clipped.
        guard_steps: steps of the attack that each epoch is scored by; 0 scores by the single step alone.
        epochs: passes over the training part, at most.
        patience: epochs without a better score before training stops; the best epoch's weights are kept.
        learning_rate: peak of the one-cycle schedule.
        warm_start: begin at the undefended model's weights; False draws them anew.
    """
    watch: dict[str, Any] = {"name": "fgsm"}
    if guard_steps:
        watch = {"name": "pgd", "steps": guard_steps, "step": max(0.25, 2 / guard_steps)}
    watched = make_attack(watch, "defenses.fast-adversarial-training.guard")

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        net = trainable(model)
        threat = threat_in_training(train, norm=norm, eps=eps, unit=unit)
        seed = int(torch.randint(2**62, (1,), generator=rng))
        guard = WorstCase(
            inner=watched,
            spec=json.dumps(watch, sort_keys=True),
            threat=threat,
            penalty=penalty(train),
            scored_rows=_WATCHED_ROWS,
        )
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate, patience=patience)
        before, start = (model, net) if warm_start else (anew(model), fresh(net, seed))
        return fit(
            before, start, replace(train, recipe=recipe), NoisyStep(guard=guard, noise=noise, step=step), seed=seed
        )

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyStep:
    """The objective: the penalty one step away from noise around the batch; scored by a longer attack, the guard.

    Training on one step can collapse from one epoch to the next: the step still fails, every longer attack succeeds
    (catastrophic overfitting). The step's own score would not show it; the guard's does, so that the weights from
    before the collapse are kept.
    """

    guard: WorstCase
    noise: float
    step: float

    @property
    def key(self) -> str:
        """Return noise, step, and the key of the guard, which holds threat, rules and weights."""
        return f"noisy-step/{self.noise}/{self.step}/{self.guard.key}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return the penalty at the batch after one step; the step sees the network in evaluation mode."""
        net.eval()
        x_adv = self._stepped(logits, x, y, rng)
        net.train()
        return self.guard.penalty(logits(x_adv), y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return how right the validation rows are under the guard."""
        return self.guard.score(net, logits, part, rng)

    def _stepped(self, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return x + noise + step, inside the domain but not held to the budget (algorithm 1, lines 4 to 7)."""
        threat = self.guard.threat
        start = settled(relaxed(threat), self._noisy(x, rng), x, free=True)
        # In a domain of whole numbers the slope is the one at those near by, as for every attack.
        seen = settled(threat, start, x, free=True).detach().requires_grad_()
        grad = torch.autograd.grad(threat.goal.loss(logits(seen), y).sum(), seen)[0]
        moved = threat.budget.ascend(start, grad, self.step * threat.budget.eps)
        return settled(threat, moved, x, free=True)

    def _noisy(self, x: Tensor, rng: Generator) -> Tensor:
        if not self.noise:
            return x.clone()
        budget = self.guard.threat.budget
        noise = Noise(int(torch.randint(2**62, (1,), generator=rng)), torch.arange(len(x), device=x.device))
        return budget.at(self.noise * budget.eps).sample(x, noise)
