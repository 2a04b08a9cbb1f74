"""Implausible profiles: each value of a row was measured in somebody, and all of them together in nobody."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Natural, Share, poison
from titer.core.protocols import Poison, Poisoned, TrainingData
from titer.engine.poisoning import (
    brought_inside,
    check_classes,
    chosen,
    differing,
    inside,
    replaced,
    row_count,
)

_TABLE = 2


@poison(
    "implausible-profile",
    paper="Titer's own; availability poisoning as Biggio, Nelson, Laskov 2012, arXiv:1206.6389, without gradients",
    threat_ids=("NISTAML.013", "AML.T0020"),
)
def implausible_profile(*, share: Share = 0.05, target: Natural | None = None) -> Poison:
    """Implausible profiles.

    For tables: measures, expression, methylation. Every value of a changed row is drawn anew, each from the row of
    another patient of another class. A check of each value against its range sees nothing; what is regulated together
    no longer is.

    Args:
        share: of the rows of the training part that are changed.
        target: the class whose rows are changed; rows of every class without it.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Poisoned:  # noqa: ARG001 - nothing is known of it
        check_classes("implausible-profile", train, target=target)
        part = train.train
        if part.x.dim() != _TABLE:
            raise Incompatible(
                f"implausible-profile mixes the features of tables, not rows of {tuple(part.x.shape[1:])}"
            )
        y = part.y.cpu()
        able = torch.ones_like(y, dtype=torch.bool) if target is None else y == target
        rows = chosen(able, row_count(train, share), f"are of class {target}", rng)
        mixed = _mixed(part.x.cpu(), y, rows, rng).to(part.x)
        mixed = brought_inside(train.domain, mixed, part.x[rows])
        kept = inside(train.domain, mixed, part.x[rows]).unsqueeze(1)
        changed = replaced(part, rows, x=torch.where(kept, mixed, part.x[rows]))
        return Poisoned(samples=changed, changed=differing(part, changed))

    return run


def _mixed(x: Tensor, y: Tensor, rows: Tensor, rng: Generator) -> Tensor:
    """Return float[n, D]: for each of the rows int64[n] values of random rows of another class, feature by feature."""
    found = torch.empty(len(rows), x.shape[1])
    for label in y[rows].unique().tolist():
        own, others = y[rows] == label, (y != label).nonzero().flatten()
        if not len(others):
            raise Incompatible(f"every training row is of class {label}: there is no other class to draw values from")
        drawn = torch.randint(len(others), (int(own.sum()), x.shape[1]), generator=rng)
        found[own] = x[others[drawn], torch.arange(x.shape[1])]
    return found
