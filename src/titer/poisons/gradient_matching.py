"""Gradient matching: rows with their right label, changed a little, teach a model to err on a few chosen inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Natural, Positive, Share, poison
from titer.core.protocols import Poison, Poisoned, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.engine.poisoning import (
    check_classes,
    chosen,
    differing,
    perturbed,
    replaced,
    row_count,
    threads,
)
from titer.training.objectives import all_logits


@poison(
    "gradient-matching",
    paper="Geiping et al. 2021 (Witches' Brew), arXiv:2009.02276, equation 3 and algorithm 1",
    threat_ids=("NISTAML.024", "AML.T0020"),
)
def gradient_matching(
    *,
    eps: Positive,
    unit: str,
    share: Share = 0.01,
    target: Natural = 0,
    source: Natural | None = None,
    samples: Count = 1,
    steps: Count = 100,
) -> Poison:
    """Gradient matching.

    Rows of the target class are changed within a budget so that the gradient of a training on them points where the
    one of answering the chosen inputs with the target does. Labels stay right. The attacker's inputs are drawn from
    the validation part, among those that are answered rightly so far.

    Args:
        eps: linf budget of each changed row.
        unit: of `eps`.
        share: of the rows of the training part that are changed.
        target: the class that the chosen inputs are to be answered with.
        source: the class of the chosen inputs; any but the target without it.
        samples: how many inputs the attacker wants.
        steps: of the search, each with one pass through the gradient of the gradient.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Poisoned:
        check_classes("gradient-matching", train, source=source, target=target)
        net, logits = threads(model)
        aimed = _aimed(logits, train, source, target, samples, rng)
        part = train.train
        rows = chosen(part.y == target, row_count(train, share), f"are of class {target}", rng)
        weights = [one for one in net.parameters() if one.requires_grad]
        wanted = _gradient(logits, aimed.x, torch.full_like(aimed.y, target), weights, keep=False)
        y = part.y[rows]

        def apart(x: Tensor) -> Tensor:
            return 1 - _cosine(_gradient(logits, x, y, weights, keep=True), wanted)

        x = perturbed(train, part.x[rows], apart, eps=eps, unit=unit, steps=steps)
        changed = replaced(part, rows, x=x)
        marks = differing(part, changed)
        return Poisoned(samples=changed, changed=marks, aimed=aimed, target=target, source=source)

    return run


def _aimed(logits: Logits, train: TrainingData, source: int | None, target: int, count: int, rng: Generator) -> Samples:
    """Return the inputs that the attacker wants: such as are no trouble to a model that was trained on clean rows."""
    part = train.validation
    right = all_logits(logits, part.x).argmax(1) == part.y
    own = part.y != target if source is None else part.y == source
    able = (right & own).nonzero().flatten().cpu()
    if len(able) < count:
        raise Incompatible(f"the attacker wants {count} inputs, and {len(able)} of the validation part could be")
    return part.take(able[torch.randperm(len(able), generator=rng)[:count]].tolist())


def _gradient(logits: Logits, x: Tensor, y: Tensor, weights: Sequence[Tensor], *, keep: bool) -> tuple[Tensor, ...]:
    """Return the gradient of the mean cross-entropy for the weights, with its own graph where it is kept."""
    return torch.autograd.grad(functional.cross_entropy(logits(x), y), weights, create_graph=keep)


def _cosine(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> Tensor:
    """Return the cosine of the angle between two gradients over all weights."""
    product = sum(((a * b).sum() for a, b in zip(one, other, strict=True)), start=one[0].new_zeros(()))
    squares = [sum(((a * a).sum() for a in each), start=one[0].new_zeros(())) for each in (one, other)]
    return product / (squares[0].sqrt() * squares[1].sqrt() + 1e-12)
