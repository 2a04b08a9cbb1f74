"""How every detector gives back its alarm: held to the form of the rows that it was fitted on."""

from __future__ import annotations

from torch import Tensor

from titer.core.errors import Incompatible
from titer.core.protocols import Alarm, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits


def fitted(name: str, x: Tensor, score: Logits, smooth: Logits | None = None) -> Alarm:
    """Return the alarm of a detector fitted on rows like x [n, ...].

    Its functions take raw inputs of that shape, no rows as well, and give float[N]; other shapes raise Incompatible.
    """
    shape = tuple(x.shape[1:])
    return Alarm(
        name=name,
        score=_held_to(name, shape, score),
        smooth=None if smooth is None else _held_to(name, shape, smooth),
    )


def some(part: Samples, count: int) -> Samples:
    """Return at most `count` rows, evenly spaced over the part, so that an order by class or site leaves none out."""
    if len(part) <= count:
        return part
    return part.take([int(row * len(part) / count) for row in range(count)])


def needs_rows(name: str, data: TrainingData, least: int) -> None:
    """Raise Incompatible where the training part has fewer than `least` rows."""
    if len(data.train) < least:
        raise Incompatible(f"{name} needs {least} training rows or more, and there are {len(data.train)}")


def _held_to(name: str, shape: tuple[int, ...], score: Logits) -> Logits:
    def held(x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != shape:
            raise Incompatible(f"{name} was fitted on rows of shape {shape}, not {tuple(x.shape[1:])}")
        if not len(x):
            return x.flatten(1).sum(1)
        return score(x)

    return held
