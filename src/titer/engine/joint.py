"""The engine of patterns that are one for all rows: learned on a drawn part of them, then put on every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.noise import Noise
from titer.core.threat import Threat
from titer.engine.rows import RowLoss, Rows


class Worn(NamedTuple):
    """Rows with the pattern on, [n, ...], and the way back: from their gradient, [n, ...], to the pattern's."""

    x_adv: Tensor
    pull: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One attack's mathematics: how a search begins (`None`: the first), how rows wear the pattern, how it steps.

    `step` gets the pattern, the mean gradient and the share of the search that is left, from 1 to 0.
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
    everyone = Rows(model=model, x=x, y=y, threat=threat, at=at, noise=Noise(seed, at), rng=rng)
    order = torch.randperm(len(x), generator=rng).to(x.device)
    seen = everyone.take(order[: max(1, round(lessons.fit_share * len(x)))].sort().values)
    best, most, last = None, -1, None
    for _ in range(lessons.restarts):
        last = _learned(seen, pattern.start(last), pattern, lessons, rng)
        won = int(seen.look(pattern.wear(seen, last).x_adv).sum()) if lessons.restarts > 1 else 0
        if won > most:
            best, most = last, won
    assert best is not None
    return pattern.wear(everyone, best).x_adv


def _learned(seen: Rows, found: Tensor, pattern: Pattern, lessons: Lessons, rng: Generator) -> Tensor:
    """Climb the number of rows that are won, by mini-batches (Shafahi et al. 2020, algorithm 1)."""
    steps = lessons.epochs * -(-len(seen) // lessons.batch)
    for step, batch in enumerate(_batches(len(seen), lessons, rng)):
        rows = seen.take(batch.to(seen.at.device))
        x_adv, pull = pattern.wear(rows, found)
        grad = pull(rows.evaluate(x_adv, soft_count(rows)).grad) / len(rows)
        found = pattern.step(found, grad, 1 - step / steps)
    return found


def _batches(count: int, lessons: Lessons, rng: Generator) -> Iterator[Tensor]:
    for _ in range(lessons.epochs):
        yield from torch.randperm(count, generator=rng).split(lessons.batch)


def soft_count(rows: Rows) -> RowLoss:
    """Return the loss of which the mean is a smooth share of won rows: each row weighs by how near it is to the edge.

    The weight is the slope of a sigmoid of the margin, whose width is the batch's median margin. Without it the rows
    of two classes, which one pattern drives apart, pull in opposite directions and cancel; and rows that were won long
    ago go on pulling (the clipped loss of Shafahi et al. 2020, eq. 5, cures the second of these only).
    """
    goal = rows.threat.goal

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            margin = goal.margin(logits, y)
            near = torch.sigmoid(margin / margin.abs().median().clamp_min(1e-12))
        return near * (1 - near) * goal.loss(logits, y)

    return loss
