"""Interval training: minimise the loss at the worst logits that bounds allow, so that robustness can be proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, Share, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits, Threat
from titer.engine.bound_graph import Graph, graph
from titer.engine.bounds import intervals, lowest
from titer.engine.certificates import SLACK, lead_slopes
from titer.engine.regions import Around, around, seen_by
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import Penalty, penalty

_PASSED_ROWS = 256
_STARTED = 0.1


@defense(
    "interval-training",
    paper="Gowal et al. 2018, arXiv:1810.12715, section 3; CROWN-IBP: Zhang et al. 2020, arXiv:1906.06316",
)
def interval_training(
    *,
    eps: Positive,
    unit: str,
    bounds: Literal["interval", "crown-interval"] = "interval",
    epochs: Count = 40,
    learning_rate: Positive = 5e-3,
    ramp: Share = 0.5,
    clean: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    warm_start: bool = False,
) -> Defense:
    """Interval training.

    Linf only. Each epoch is scored by the share of validation rows that intervals prove at the full budget, and the
    best is kept. The budget grows from 0 after a tenth of the training, and the bounds' part of the loss with it.

    Args:
        eps: budget that is trained for, in `unit`.
        unit: one of the data set's units.
        bounds: `interval`, or `crown-interval`, which begins with linear bounds and ends with intervals.
        epochs: passes over the training part; none is saved by stopping early, as the budget grows all the while.
        learning_rate: peak of the one-cycle schedule.
        ramp: share of the training after which the budget is whole.
        clean: weight of the loss without any change, at the end of the ramp; the rest is the bounds'.
        warm_start: begin at the undefended model's weights; False draws them anew, which bounds take better.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        if model.net is None or model.rebuild is None:
            raise Incompatible(f"{model.name} has no network to train")
        if train.output != "classes":
            raise Incompatible(f"interval-training bounds the lead of a class, and {model.name} returns {train.output}")
        if unit not in train.units:
            raise Incompatible(f"unit {unit!r} is not one of this data set's: {', '.join(train.units)}")
        graph(model.net, seen_by(model.rebuild, train.train.x[:1]))
        seed = int(torch.randint(2**62, (1,), generator=rng))
        budget = ball("linf", eps, train.units[unit], unit)
        threat = Threat(family="linf", budget=budget, domain=train.domain, goal=AnyError())
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate, patience=epochs)
        objective = Bounded(
            rebuild=model.rebuild,
            threat=threat,
            penalty=penalty(train),
            linear=bounds == "crown-interval",
            ramp=ramp,
            clean=clean,
            course=Course(batches=epochs * -(-len(train.train) // recipe.batch_size)),
        )
        before, start = (model, model.net) if warm_start else (anew(model), fresh(model.net, seed))
        return fit(before, start, replace(train, recipe=recipe), objective, seed=seed)

    return run


@dataclass(slots=True, kw_only=True)
class Course:
    """How far one training has come, and the layers of the network that it trains."""

    batches: int
    done: int = 0
    layers: Graph | None = field(default=None, repr=False)

    def next(self) -> float:
        """Return the share of the training that is done before this batch."""
        self.done += 1
        return (self.done - 1) / self.batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """The objective: cross-entropy of the clean logits, and of the worst logits in the budget (Gowal, section 3)."""

    rebuild: Callable[[nn.Module], Logits]
    threat: Threat
    penalty: Penalty
    linear: bool
    ramp: float
    clean: float
    course: Course

    @property
    def key(self) -> str:
        """Return budget, rules, schedule and penalty."""
        scale = self.threat.budget.scaled(torch.zeros(1)).flatten().tolist()
        rules = [rule.describe() for rule in self.threat.domain]
        kind = "crown-interval" if self.linear else "interval"
        return f"bounded/{kind}/{self.threat.name}/{scale}/{rules}/{self.ramp}/{self.clean}/{self.penalty.key}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the mix of both losses at this point of the schedule.

        Batch norm bounds with its running statistics, as the trained network will; the clean pass moves them.
        """
        grown = _grown(self.course.next(), self.ramp)
        plain = self.penalty(logits(x), y)
        if not grown:
            return plain
        region = self._around(x, grown * self.threat.budget.eps)
        least = self._leads(self._layers(net, region), region, y, 1.0 - grown if self.linear else 0.0)
        share = (1.0 - self.clean) * grown
        return (1.0 - share) * plain + share * self.penalty(-least, y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return the share of rows proven at the whole budget, ties broken by the clean accuracy.

        Rows count by their class's weight, so that with balanced weights it is a balanced accuracy.
        """
        weights = self.penalty.weights
        share = torch.ones(len(part)).to(part.x) if weights is None else weights[part.y]
        rows = list(zip(part.x.split(_PASSED_ROWS), part.y.split(_PASSED_ROWS), strict=True))
        with torch.no_grad():
            proven = torch.cat([self._proven(net, x, y) for x, y in rows])
            right = torch.cat([logits(x).argmax(1) == y for x, y in rows])
        return float((proven * share).sum() / share.sum()) + 1e-3 * float((right * share).sum() / share.sum())

    def _proven(self, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        region = self._around(x, self.threat.budget.eps)
        least = self._leads(self._layers(net, region), region, y, 0.0)
        others = ~nn.functional.one_hot(y, least.shape[1]).bool()
        return ((least > SLACK) | ~others).all(1)

    def _around(self, x: Tensor, eps: float) -> Around:
        return around(self.rebuild, x, self.threat, torch.full((len(x),), eps).to(x))

    def _layers(self, net: nn.Module, region: Around) -> Graph:
        if self.course.layers is None:
            self.course.layers = graph(net, region.center)
        return self.course.layers

    def _leads(self, layers: Graph, region: Around, y: Tensor, linear: float) -> Tensor:
        """Return float[n, K], a bound of each lead; `linear` weighs linear bounds against intervals (CROWN-IBP)."""
        found, last = intervals(layers, region), len(layers.steps) - 1
        slope = lead_slopes(layers, y, region)
        least = lowest(layers, slope, last, found, region, bend=False)
        if not linear:
            return least
        return (1.0 - linear) * least + linear * lowest(layers, slope, last, found, region)


def _grown(done: float, ramp: float) -> float:
    """Return the share of the whole budget after a share `done` of the training: a line from a tenth to `ramp`."""
    started = min(_STARTED, ramp / 2)
    return min(max((done - started) / (ramp - started), 0.0), 1.0)
