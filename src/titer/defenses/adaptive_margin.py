"""Adaptive margins: adversarial training in which each row's budget grows as long as the model holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, Share, defense
from titer.core.protocols import Defense, TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits, Threat
from titer.training.loop import anew, fit, fresh
from titer.training.objectives import Penalty, penalty
from titer.training.row_budgets import RowClimb
from titer.training.weights import digest
from titer.training.worst_case import SCORED_ROWS, rightness, threat_in_training, threat_key, trainable

_CLIMB = RowClimb(steps=7, step=0.25)
_SCORED_SHARES = (0.0, 0.5, 1.0)
_HELD = 0.5
"""A row holds where it is more right than this: its class, half its findings, half a standard deviation, a Dice."""

Groups = Mapping[str, Mapping[str, float]]
"""Budgets by column and by the value there: {"age_band": {"0-1": 4.0}}."""


@defense("adaptive-margin", paper="Ma, Liang 2020, arXiv:2005.09147, algorithm 1 and section 2.2")
def adaptive_margin(
    *,
    eps: Positive,
    unit: str,
    norm: Literal["linf", "l2", "l1"] = "linf",
    growth: Share = 0.1,
    weight: Share = 0.5,
    groups: dict[str, dict[str, Positive]] | None = None,
    epochs: Count = 20,
    learning_rate: Positive = 1e-3,
    warm_start: bool = True,
) -> Defense:
    """Increasing-margin adversarial training (IMA), with budgets for groups of patients.

    Args:
        eps: largest budget of any row, in `unit`.
        unit: one of the data set's units.
        norm: the budget's norm.
        growth: by how much of its largest budget a row's own grows in an epoch, or shrinks.
        weight: of the attacked rows in the loss; the clean rows have the rest.
        groups: largest budgets of groups of patients, in `unit`, by column and value; of several the smallest counts.
        epochs: passes over the training part, at most.
        learning_rate: peak of the one-cycle schedule.
        warm_start: begin at the undefended model's weights; False draws them anew.
    """
    by_group = groups or {}

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:
        net = trainable(model)
        _check_groups(train.train, by_group)
        limits, scored = (_limits(part, eps, by_group).to(part.x.device) for part in (train.train, train.validation))
        # The largest budget of any row is the threat's: every row has a share of it.
        widest = float(limits.max())
        objective = GrowingMargins(
            threat=threat_in_training(train, norm=norm, eps=widest, unit=unit),
            penalty=penalty(train),
            truth=train.train.y,
            limits=limits / widest,
            score_limits=scored / widest,
            margins=growth * limits / widest,
            growth=growth,
            weight=weight,
        )
        seed = int(torch.randint(2**62, (1,), generator=rng))
        # The loop hands over rows in batches: each row is told by its number, and its truth is looked up.
        numbered = replace(train.train, y=torch.arange(len(train.train), device=train.train.y.device))
        recipe = replace(train.recipe, epochs=epochs, learning_rate=learning_rate)
        before, start = (model, net) if warm_start else (anew(model), fresh(net, seed))
        return fit(before, start, replace(train, train=numbered, recipe=recipe), objective, seed=seed)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowingMargins:
    """The objective: the clean penalty and the one at each row's own budget; `margins` float[N] change as it trains.

    Budgets are shares of the threat's. `truth` is the y of the training part, whose y are the numbers of its rows.
    """

    threat: Threat
    penalty: Penalty
    truth: Tensor
    limits: Tensor
    score_limits: Tensor
    margins: Tensor
    growth: float
    weight: float

    @property
    def key(self) -> str:
        """Return threat, settings, and what is looked up."""
        looked_up = digest({"truth": self.truth, "limits": self.limits, "score": self.score_limits})
        return f"growing-margins/{self.growth}/{self.weight}/{looked_up}/{threat_key(self.threat, self.penalty)}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return (1 - weight) of the clean penalty and weight of the attacked one; rows `y` int64[n] are numbers.

        A row that is wrong when clean has no margin, and counts as clean alone (algorithm 1, lines 5 to 9).
        """
        truth = self.truth[y]
        net.eval()
        x_adv = _CLIMB(logits, x, truth, self.threat, self.margins[y], rng=rng)
        net.train()
        clean, attacked = logits(x), logits(x_adv)
        with torch.no_grad():
            right, holds = (rightness(self.penalty, out, truth) > _HELD for out in (clean, attacked))
        self._move(y, right & holds)
        shown = right.nonzero().flatten()
        loss = (1.0 - self.weight) * self.penalty(clean, truth)
        if not len(shown):
            return loss
        share = len(shown) / len(x)
        return loss + self.weight * share * self.penalty(attacked[shown], truth[shown])

    def _move(self, rows: Tensor, holds: Tensor) -> None:
        """Grow the budget of rows that hold, and take back the last growth of the others."""
        step = self.growth * self.limits[rows]
        moved = self.margins[rows] + torch.where(holds, step, -step)
        self.margins[rows] = moved.minimum(self.limits[rows]).maximum(step)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return how right validation rows are, averaged over no, half and all of their largest budgets.

        The area under accuracy against budget is what the paper compares by (section 3).
        """
        x, y = part.x[:SCORED_ROWS], part.y[:SCORED_ROWS]
        shares = self.score_limits[:SCORED_ROWS]
        weights = self.penalty.weights if self.penalty.output == "classes" else None
        counts = torch.ones(len(x), device=x.device) if weights is None else weights[y]
        right = torch.stack([self._right(logits, x, y, share * shares, rng) for share in _SCORED_SHARES]).mean(0)
        return float((right * counts).sum() / counts.sum())

    def _right(self, logits: Logits, x: Tensor, y: Tensor, shares: Tensor, rng: Generator) -> Tensor:
        attacked = _CLIMB(logits, x, y, self.threat, shares, rng=rng) if bool((shares > 0).any()) else x
        with torch.no_grad():
            return rightness(self.penalty, logits(attacked), y)


def _limits(part: Samples, eps: float, groups: Groups) -> Tensor:
    """Return float[N], the largest budget of each row in units: the smallest that its groups name, or eps."""
    named = [[budgets.get(value) for value in part.groups[column]] for column, budgets in groups.items()]
    own = zip(*named, strict=True) if named else [()] * len(part)
    return torch.tensor([min((one for one in row if one is not None), default=eps) for row in own])


def _check_groups(part: Samples, groups: Groups) -> None:
    """Raise Incompatible where the training part has no such column, or no patient of such a group."""
    for column, budgets in groups.items():
        if column not in part.groups:
            raise _no_such("column", column, part.groups)
        for value in budgets:
            if value not in part.groups[column]:
                raise _no_such(f"group of {column}", value, part.groups[column])


def _no_such(what: str, name: str, known: Iterable[str]) -> Incompatible:
    allowed = ", ".join(sorted(set(known))) or "none: the data name no groups"
    return Incompatible(f"adaptive-margin.groups names the {what} {name!r}: allowed are {allowed}")
