"""TRADES: train the clean error, and how far an attack can move the answer away from the clean one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.plugins import Count, Positive, defense, make_attack
from titer.core.protocols import Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import penalty
from titer.training.worst_case import WorstCase, in_training, threat_in_training, trainable


@defense("trades", paper="Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan 2019, arXiv:1901.08573, eq. 5")
def trades(
    *,
    eps: Positive,
    unit: str,
    norm: Literal["linf", "l2", "l1"] = "linf",
    weight: Positive = 6.0,
    attack: str | dict[str, Any] = "pgd",
    epochs: Count = 20,
    learning_rate: Positive = 1e-3,
    warm_start: bool = True,
) -> Defense:
    """TRADES adversarial training.

    Args:
        eps: budget of the attack inside, in `unit`.
        unit: one of the data set's units.
        norm: the budget's norm.
        weight: of the robust term, 1 / lambda in the paper: more buys robustness with clean accuracy.
        attack: any registered attack by its spec; plain `pgd` means 7 steps of a quarter of the budget.
        epochs: passes over the training part, at most; stopped early on robust validation accuracy.
        learning_rate: peak of the one-cycle schedule.
        warm_start: begin at the undefended model's weights; False draws them anew.
    """
    spec: Mapping[str, Any] | str = {"name": "pgd", "steps": 7, "step": 0.25} if attack == "pgd" else attack
    inner = make_attack(spec, "defenses.trades.attack")

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        net = trainable(model)
        threat = threat_in_training(train, norm=norm, eps=eps, unit=unit)
        seed = int(torch.randint(2**62, (1,), generator=rng))
        worst = WorstCase(inner=inner, spec=json.dumps(spec, sort_keys=True), threat=threat, penalty=penalty(train))
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate)
        before, start = (model, net) if warm_start else (anew(model), fresh(net, seed))
        return fit(before, start, replace(train, recipe=recipe), Trades(worst=worst, weight=weight), seed=seed)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Trades:
    """The objective: the clean penalty plus `weight` times the divergence under attack; scored under attack."""

    worst: WorstCase
    weight: float

    @property
    def key(self) -> str:
        """Return the weight, and the key of the attack inside."""
        return f"trades/{self.weight}/{self.worst.key}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return the loss of one batch (eq. 5).

        The attack climbs the divergence from a random start in the whole budget, as every attack here does; the paper
        starts at 0.001 of normal noise, because the divergence has no slope at the clean row.
        """
        output = self.worst.penalty.output
        net.eval()
        with torch.no_grad():
            answer = logits(x)
        threat = replace(self.worst.threat, goal=Apart(output))
        x_adv = self.worst.inner(in_training(logits, self.worst.penalty), x, answer, threat, rng=rng)
        net.train()
        clean = logits(x)
        apart = divergence(output, clean, logits(x_adv), self.worst.penalty.spread).mean()
        return self.worst.penalty(clean, y) + self.weight * apart

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return how right the validation rows are under attack."""
        return self.worst.score(net, logits, part, rng)


@dataclass(frozen=True, slots=True)
class Apart:
    """The goal of the attack inside: far from the clean answer, which stands in the place of y as logits [N, K]."""

    output: Output
    name: str = "highest divergence"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the divergence, float[N]."""
        return divergence(self.output, y, logits)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return minus infinity, float[N]: no divergence is the last."""
        return torch.full_like(self.loss(logits, y), float("-inf"))

    def won(self, logits: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's signature
        """Return bool[N], all False: there is always more to climb."""
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)

    def applies(self, y: Tensor) -> Tensor:
        """Return bool[N], all True."""
        return torch.ones(len(y), dtype=torch.bool, device=y.device)


def divergence(output: Output, clean: Tensor, other: Tensor, spread: float = 1.0) -> Tensor:
    """Return float[N], how far the logits `other` are from the logits `clean`, both [N, K, ...].

    Kullback-Leibler of the classes' chances, its mean over findings or pixels; for a value, where the paper has none,
    the square of the difference over `spread`.
    """
    return _DIVERGENCES[output](clean, other, spread)


def _of_classes(clean: Tensor, other: Tensor, _spread: float) -> Tensor:
    apart = functional.kl_div(other.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
    return apart if apart.dim() == 1 else apart.flatten(1).mean(1)


def _of_labels(clean: Tensor, other: Tensor, _spread: float) -> Tensor:
    present, absent = functional.logsigmoid(clean), functional.logsigmoid(-clean)
    apart = present.exp() * (present - functional.logsigmoid(other))
    return (apart + absent.exp() * (absent - functional.logsigmoid(-other))).mean(1)


def _of_value(clean: Tensor, other: Tensor, spread: float) -> Tensor:
    return ((clean - other) / spread).square().squeeze(1)


_DIVERGENCES: dict[Output, Callable[[Tensor, Tensor, float], Tensor]] = {
    "classes": _of_classes,
    "labels": _of_labels,
    "value": _of_value,
    "mask": _of_classes,
}
