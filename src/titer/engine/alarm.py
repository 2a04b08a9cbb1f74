"""How every detector gives back its alarm: held to the form of the rows that it was fitted on, and kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.protocols import Alarm, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepable:
    """A detector in two steps: what it learns from clean data, as tensors, and how it watches with nothing else.

    `learn` raises Incompatible where it cannot work. `watch` takes the model, what was learned, and two rows or fewer
    of the right shape whose values do not matter; it gives the score, and the stand-in for it where one is needed.
    """

    name: str
    learn: Callable[[Model, TrainingData, Generator], State]
    watch: Callable[[Model, State, Tensor], tuple[Logits, Logits | None]]

    def __call__(self, model: Model, train: TrainingData, *, rng: Generator) -> Alarm:
        """Return the detector fitted on the training part, with its state."""
        return self.restored(model, self.learn(model, train, rng), train.train.x[:2])

    def restored(self, model: Model, state: State, like: Tensor) -> Alarm:
        """Return the alarm that a state was kept of; `like` [n, ...] is any row of the right shape."""
        score, smooth = self.watch(model, state, like)
        return replace(fitted(self.name, like, score, smooth), state=dict(state))


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
