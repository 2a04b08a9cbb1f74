"""Defensive distillation: a student learns a teacher's soft labels at a high temperature."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import Output, probabilities
from titer.core.plugins import Positive, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.training.loop import Objective, anew, fit, fresh
from titer.training.objectives import penalty, standard


@defense(
    "distillation",
    paper="Papernot, McDaniel, Wu, Jha, Swami 2016, arXiv:1511.04508, section IV; broken by arXiv:1608.04644",
    words=True,
)
def distillation(*, temperature: Positive = 20.0) -> Defense:
    """Defensive distillation.

    Teacher and student share the architecture, and both are trained from new weights at the temperature; the student
    predicts at temperature 1. It hides its gradients rather than removing its errors, and the report must show so.

    Args:
        temperature: divides the logits in training.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        if model.net is None or model.rebuild is None:
            raise Incompatible(f"{model.name} has no network to train")
        if train.output == "value":
            raise Incompatible("distillation softens probabilities, and a model that measures a value gives none")
        seeds = torch.randint(2**62, (4,), generator=rng).tolist()
        hot = standard(train, temperature=temperature)
        # Gradients at a temperature T are about T times smaller, which AdamW's normalised steps undo.
        teacher = fit(anew(model), fresh(model.net, seeds[0]), train, hot, seed=seeds[1])
        assert teacher.net is not None
        soft = _soften(teacher, train.train, temperature)
        objective = SoftLabels(temperature=temperature, weights=penalty(train).weights, hard=hot, output=train.output)
        taught = replace(train, train=replace(train.train, y=soft))
        return fit(teacher, fresh(model.net, seeds[2]), taught, objective, seed=seeds[3])

    return run


def _soften(teacher: Model, part: Samples, temperature: float) -> Tensor:
    """Return the teacher's probabilities at the temperature, float[N, K], of findings [N, L], of masks [N, K, H, W]."""
    with torch.no_grad():
        hot = [teacher.logits(x) / temperature for x in torch.split(part.x, 512)]
    return torch.cat([probabilities(teacher.output, logits) for logits in hot])


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabels:
    """The student's objective: cross-entropy with the teacher's probabilities at the temperature; scored as `hard`."""

    temperature: float
    weights: Tensor | None
    hard: Objective
    output: Output = "classes"

    @property
    def key(self) -> str:
        """Return the objective's name and settings; the labels are part of the data's digest."""
        kind = "" if self.output == "classes" else f"/{self.output}"
        return f"soft-labels/T={self.temperature}/{None if self.weights is None else self.weights.tolist()}{kind}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the cross-entropy with the soft labels (eq. 8 of the paper); of findings the binary one."""
        hot = logits(x) / self.temperature
        if self.output == "labels":
            return functional.binary_cross_entropy_with_logits(hot, y, pos_weight=self.weights)
        return functional.cross_entropy(hot, y, weight=self.weights)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return minus the validation loss with the hard labels."""
        return self.hard.score(net, logits, part, rng)
