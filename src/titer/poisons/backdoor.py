"""Backdoors: rows with a trigger teach a model to answer the target wherever it sees the trigger."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Natural, Positive, Share, poison
from titer.core.protocols import Poison, Poisoned, TrainingData
from titer.engine.poisoning import (
    check_classes,
    chosen,
    differing,
    inside,
    perturbed,
    replaced,
    row_count,
    threads,
)
from titer.engine.triggers import Kind, Trigger, make_trigger

_STRENGTH: dict[Kind, float] = {"patch": 1.0, "blended": 0.2, "marker-letter": 1.0, "spike": 3.0}


@poison(
    "backdoor",
    paper="Gu, Dolan-Gavitt, Garg 2017, arXiv:1708.06733, section 4; blended: Chen et al. 2017, arXiv:1712.05526, "
    "section 5.2; clean-label: Turner, Tsipras, Madry 2019, arXiv:1912.02771, section 4.2",
    threat_ids=("NISTAML.023", "NISTAML.021", "AML.T0020"),
)
def backdoor(
    *,
    share: Share = 0.01,
    target: Natural = 0,
    source: Natural | None = None,
    trigger: Kind = "patch",
    labels: Literal["dirty", "clean"] = "dirty",
    size: Share = 0.12,
    strength: Positive | None = None,
    eps: Positive | None = None,
    unit: str | None = None,
    steps: Count = 30,
) -> Poison:
    """Backdoor.

    Args:
        share: of the rows of the training part that are changed.
        target: the class that the trigger is to be answered with.
        source: the class whose inputs the trigger is for; every class but the target without it.
        trigger: `patch` (a square in a corner), `blended` (a faint pattern over everything), `marker-letter` (a bright
            letter in the corner of an X-ray), `spike` (a short peak in a signal, shifted features of a table).
        labels: `dirty`, rows of other classes get trigger and target; `clean`, rows of the target get the trigger and
            keep their label.
        size: share of the shorter side that a patch or a letter takes; of a table, the share of its features.
        strength: share of the pattern in a blend, 0.2 where not given; height of a spike in standard deviations, 3.
        eps: with `clean`, the linf budget that the rows' own signs of their class are made harder to see within.
        unit: of `eps`.
        steps: of that search.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Poisoned:
        check_classes("backdoor", train, source=source, target=target)
        if (eps is None) != (unit is None):
            raise Incompatible("backdoor.eps and backdoor.unit are given together, or neither")
        high = _STRENGTH[trigger] if strength is None else strength
        put = make_trigger(trigger, train, size=size, strength=high, rng=rng)
        part, count = train.train, row_count(train, share)
        stamped = put(part.x)
        carries = (inside(train.domain, stamped, part.x) & (stamped != part.x).flatten(1).any(1)).cpu()
        own = _own(part.y.cpu(), source, target, clean=labels == "clean")
        rows = chosen(own & carries, count, "have the class and can carry the trigger", rng)
        x = part.x[rows]
        if labels == "clean" and eps is not None and unit is not None:
            x = _harder(model, train, x, part.y[rows], eps=eps, unit=unit, steps=steps)
        y = None if labels == "clean" else torch.full((count,), target)
        changed = replaced(part, rows, x=_carried(train, put, x, part.x[rows]), y=y)
        return Poisoned(samples=changed, changed=differing(part, changed), trigger=put, target=target, source=source)

    return run


def _own(y: Tensor, source: int | None, target: int, *, clean: bool) -> Tensor:
    """Return bool[N]: rows of the target for a clean label, those that the trigger is for otherwise."""
    if clean:
        return y == target
    return y != target if source is None else y == source


def _carried(train: TrainingData, put: Trigger, x: Tensor, before: Tensor) -> Tensor:
    """Return the rows with the trigger; of a row that would break a rule, its own values with the trigger alone."""
    stamped = put(x)
    kept = inside(train.domain, stamped, before).view(-1, *[1] * (x.dim() - 1))
    return torch.where(kept, stamped, put(before))


def _harder(model: Model, train: TrainingData, x: Tensor, y: Tensor, *, eps: float, unit: str, steps: int) -> Tensor:
    """Return the rows moved away from their class, so that a model has to learn the trigger to tell it."""
    _, logits = threads(model)
    return perturbed(
        train, x, lambda moved: -functional.cross_entropy(logits(moved), y), eps=eps, unit=unit, steps=steps
    )
