"""Flipped labels: rows of the training set say another class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import Natural, Share, poison
from titer.core.protocols import Poison, Poisoned, TrainingData
from titer.engine.poisoning import check_classes, chosen, differing, replaced, row_count


@poison(
    "label-flip",
    paper="Biggio, Nelson, Laskov 2011, ACML, section 3; pairs: Tolpegin et al. 2020, arXiv:2007.08432, section 3",
    threat_ids=("NISTAML.013", "AML.T0020"),
)
def label_flip(*, share: Share = 0.05, source: Natural | None = None, target: Natural | None = None) -> Poison:
    """Flipped labels.

    Values stay as they are. Without `source` and `target`, rows of any class get any other class.

    Args:
        share: of the rows of the training part that are changed.
        source: the class whose rows are changed; every class but the target without it.
        target: the class that they get; any other class without it.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Poisoned:  # noqa: ARG001 - nothing is known of it
        check_classes("label-flip", train, source=source, target=target)
        y = train.train.y.cpu()
        rows = chosen(_eligible(y, source, target), row_count(train, share), _what(source), rng)
        flipped = replaced(train.train, rows, y=_others(y[rows], train.classes, target, rng))
        return Poisoned(samples=flipped, changed=differing(train.train, flipped), source=source, target=target)

    return run


def _eligible(y: Tensor, source: int | None, target: int | None) -> Tensor:
    if source is not None:
        return y == source
    return y != (-1 if target is None else target)


def _what(source: int | None) -> str:
    return "could be" if source is None else f"are of class {source}"


def _others(y: Tensor, classes: int, target: int | None, rng: Generator) -> Tensor:
    """Return int64[n]: the target, or one of the other classes, each as likely."""
    if target is not None:
        return torch.full_like(y, target)
    return (y + torch.randint(1, classes, y.shape, generator=rng)) % classes
