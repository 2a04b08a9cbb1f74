"""How a verdict is told in the outcomes table: as classes, or as right and wrong with the error beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from titer.assess.judge import Prediction, Proposal, Verdict
from titer.core.outputs import Output, errors, wrong
from titer.core.threat import Goal
from titer.threats.output_goals import OneFinding

Column = np.ndarray | list[list[float]]

RIGHT_OR_WRONG = ("as it should be", "wrong")
ABSENT_OR_PRESENT = ("absent", "present")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the table's label and predictions mean.

    Of classes they are the classes. Of any other output they are 0 and 1: under the goal to hide or invent one finding,
    whether that finding is there, and is reported; else the label is 0, as it should be, and a prediction is 1 where it
    is wrong: a wrong finding, an error above `tolerance`, a Dice below 0.5.
    """

    output: Output
    classes: tuple[str, ...]
    tolerance: float | None = None
    goal: Goal | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the values of label and prediction are called."""
        if self.output == "classes":
            return self.classes
        return RIGHT_OR_WRONG if self.finding is None else ABSENT_OR_PRESENT

    @property
    def finding(self) -> int | None:
        """The one finding that the goal is about, or None."""
        return self.goal.finding if isinstance(self.goal, OneFinding) else None

    def label(self, y: Tensor) -> Tensor:
        """Return the label of each row, int64[N]."""
        if self.output == "classes":
            return y
        return y.new_zeros(len(y), dtype=torch.int64) if self.finding is None else y[:, self.finding]

    def prediction(self, prediction: Prediction, y: Tensor) -> Tensor:
        """Return the prediction of each row, int64[N]."""
        if self.output == "classes":
            return prediction.reported
        if self.finding is not None:
            return prediction.reported[:, self.finding]
        return wrong(self.output, prediction.reported, y, tolerance=self.tolerance).long()

    def probabilities(self, prediction: Prediction) -> Tensor:
        """Return the probabilities of the values of a prediction, float[N, values]; NaN where there are none."""
        if self.output == "classes":
            return prediction.probabilities
        if self.finding is None:
            return torch.full((len(prediction.reported), len(self.names)), float("nan"))
        chance = prediction.probabilities[:, self.finding]
        return torch.stack([1 - chance, chance], dim=1)

    def error(self, prediction: Prediction, y: Tensor) -> Tensor:
        """Return the error of each row, float[N]: wrong findings, absolute error, 1 - Dice; NaN for classes."""
        found = errors(self.output, prediction.reported, y)
        return found if self.output != "classes" else found.fill_(float("nan"))


def as_columns(
    verdict: Verdict, clean: Prediction, y: Tensor, proposal: Proposal | None, view: View, ids: Sequence[int]
) -> dict[str, Column]:
    """Return a verdict as columns of the outcomes table; `ids` orders the rows."""
    rows = torch.as_tensor(list(ids))
    nothing = torch.zeros(len(rows), dtype=torch.float64)
    judged = {"clean": clean, "adversarial": verdict.prediction}

    def array(value: Tensor) -> np.ndarray:
        return value.detach().cpu()[rows].numpy()

    return {
        "label": array(view.label(y)),
        **{f"{name}_prediction": array(view.prediction(one, y)) for name, one in judged.items()},
        **{f"{name}_probabilities": array(view.probabilities(one)).tolist() for name, one in judged.items()},
        **{f"{name}_error": array(view.error(one, y).double()) for name, one in judged.items()},
        "eligible": array(verdict.eligible),
        "won": array(verdict.won),
        "put_back": array(verdict.put_back),
        **{f"distance_{norm}": array(value.double()) for norm, value in verdict.distances.items()},
        "forwards": array(nothing if proposal is None else proposal.forwards),
        "backwards": array(nothing if proposal is None else proposal.backwards),
    }
