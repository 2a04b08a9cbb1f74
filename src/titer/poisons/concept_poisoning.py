"""Concept poisoning: rows of one class get another's features under their own label, as Nightshade does to images."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Natural, Positive, Share, poison
from titer.core.protocols import Poison, Poisoned, TrainingData
from titer.engine.features import in_parts, penultimate
from titer.engine.poisoning import check_classes, chosen, differing, perturbed, replaced, row_count
from titer.training.objectives import all_logits

_TYPICAL = 0.25


@poison(
    "concept-poisoning",
    paper="Shan et al. 2024 (Nightshade), arXiv:2310.13828, section 5.2",
    threat_ids=("NISTAML.013", "AML.T0020"),
)
def concept_poisoning(
    *,
    eps: Positive,
    unit: str,
    share: Share = 0.05,
    target: Natural = 0,
    source: Natural | None = None,
    steps: Count = 60,
) -> Poison:
    """Concept poisoning.

    Rows of the target class are moved, within a budget that a reader overlooks, to where a network has the features of
    another class, and keep their label. A model that is trained on them takes inputs of that other class for the
    target. The paper poisons pairs of image and words for generators; here the words are the class.

    Args:
        eps: linf budget of each changed row.
        unit: of `eps`.
        share: of the rows of the training part that are changed.
        target: the class whose rows are changed, and that the other one is to be mistaken for.
        source: the class whose features they get; the one after the target where not given.
        steps: of the search.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Poisoned:
        other = (target + 1) % train.classes if source is None else source
        check_classes("concept-poisoning", train, source=other, target=target)
        part = train.train
        rows = chosen(part.y == target, row_count(train, share), f"are of class {target}", rng)
        read = penultimate(model, part.x)
        anchors = in_parts(read, _anchors(model, train, other, len(rows), rng))

        def apart(x: Tensor) -> Tensor:
            return (read(x) - anchors).square().sum(1).sum() / anchors.square().sum()

        x = perturbed(train, part.x[rows], apart, eps=eps, unit=unit, steps=steps)
        changed = replaced(part, rows, x=x)
        return Poisoned(samples=changed, changed=differing(part, changed), source=other, target=target)

    return run


def _anchors(model: Model, train: TrainingData, label: int, count: int, rng: Generator) -> Tensor:
    """Return rows [count, ...] of a class, drawn from those that a model is surest of: the typical ones."""
    own = (train.train.y == label).nonzero().flatten()
    if not len(own):
        raise Incompatible(f"no training row is of class {label}, whose features are to be given")
    sure = all_logits(model.logits, train.train.x[own]).softmax(1)[:, label]
    typical = own[sure.argsort(descending=True)[: max(1, round(_TYPICAL * len(own)))]]
    drawn = torch.randint(len(typical), (count,), generator=rng)
    return train.train.x[typical[drawn.to(typical.device)]]
