"""The engine of patterns that are one for all rows: learned on a drawn part of them, then put on every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.threat import Threat
from titer.engine.rows import RowLoss, Rows, rows_of

_WIDTHS = (0.25, 1.0)
"""Measured on chest X-rays and digits: a narrow edge finds patterns for small budgets, a wide one for large ones."""


class Worn(NamedTuple):
    """Rows with the pattern on, [n, ...], and the way back: from their gradient, [n, ...], to the pattern's."""

    x_adv: Tensor
    pull: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One attack's mathematics: how a search begins, how rows wear the pattern, and how it steps.

    `start` gets None, or the find whose opposite is to be tried; `step` gets the pattern, the mean gradient and the
    share of the search that is left, from 1 to 0.
    """

    start: Callable[[Tensor | None], Tensor]
    wear: Callable[[Rows, Tensor], Worn]
    step: Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """How a pattern is learned: on which share of the rows, how often and in what batches, from how many starts."""

    fit_share: float
    epochs: int
    batch: int
    restarts: int


def spread(
    model: Model, x: Tensor, y: Tensor, threat: Threat, pattern: Pattern, lessons: Lessons, *, rng: Generator
) -> Tensor:
    """Return every row of `x` [N, ...] with the one pattern that won most of the rows it was learned on.

    Won rows do not leave: the next step may lose them again.

    Raises:
        Incompatible: the model gives no gradient.
    """
    seed = int(torch.randint(2**62, (1,), generator=rng))
    at = torch.arange(len(x), device=x.device)
    everyone = rows_of(model, x, y, threat, at, seed, rng)
    order = torch.randperm(len(x), generator=rng).to(x.device)
    seen = everyone.take(order[: max(1, round(lessons.fit_share * len(x)))].sort().values)
    best, most, last = None, -1, None
    for restart in range(lessons.restarts):
        # Every second search begins at the opposite of the last find: in a model of two classes one direction hides
        # what the other invents, and which of the two wins more rows is seen at the end only.
        last = _learned(seen, pattern.start(last if restart % 2 else None), pattern, lessons, restart, rng)
        won = int(seen.look(pattern.wear(seen, last).x_adv).sum()) if lessons.restarts > 1 else 0
        if won > most:
            best, most = last, won
    assert best is not None
    return everyone.settled(pattern.wear(everyone, best).x_adv)


def _learned(seen: Rows, found: Tensor, pattern: Pattern, lessons: Lessons, restart: int, rng: Generator) -> Tensor:
    """Climb the number of rows that are won, by mini-batches (Shafahi et al. 2020, algorithm 1)."""
    width = _WIDTHS[restart // 2 % len(_WIDTHS)]
    steps = lessons.epochs * -(-len(seen) // lessons.batch)
    for step, batch in enumerate(_batches(len(seen), lessons, rng)):
        rows = seen.take(batch.to(seen.at.device))
        x_adv, pull = pattern.wear(rows, found)
        grad = pull(rows.evaluate(x_adv, soft_count(rows, width)).grad) / len(rows)
        found = pattern.step(found, grad, 1 - step / steps)
    return found


def _batches(count: int, lessons: Lessons, rng: Generator) -> Iterator[Tensor]:
    for _ in range(lessons.epochs):
        yield from torch.randperm(count, generator=rng).split(lessons.batch)


def soft_count(rows: Rows, width: float) -> RowLoss:
    """Return the loss of which the mean is a smooth share of won rows: each row weighs by how near it is to the edge.

    The weight is the slope of a sigmoid of the margin, `width` times the batch's median margin wide. Without it the
    rows of two classes, which one pattern drives apart, pull in opposite directions and cancel; and rows that were won
    long ago go on pulling (the clipped loss of Shafahi et al. 2020, eq. 5, cures the second of these only).
    """
    goal = rows.threat.goal

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            margin = goal.margin(logits, y)
            near = torch.sigmoid(margin / (width * margin.abs().median()).clamp_min(1e-12))
        return near * (1 - near) * goal.loss(logits, y)

    return loss
