"""The units of work of a study: what one trial keeps of one defended model, besides the outcomes of attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from titer.assess.plan import Plan
from titer.assess.study_plans import StudyPlan
from titer.assess.trial import Defended, Trial
from titer.core.randomness import generator
from titer.core.record import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a part found: a table, facts for its note, and arrays that the report shows."""

    frame: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One unit of a study that is done once and kept. `spec` is everything it depends on besides trial and model.

    `run` may raise Incompatible: then the reason is kept in the table's place.
    """

    title: str
    spec: Mapping[str, Any]
    run: Callable[[], Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study of defended models: its name is its key in the plan, its folder and its table in the run folder.

    `table` takes its settings out of a plan, None where the plan has none; `parts` yields the work on one model.
    """

    name: str
    table: Callable[[Plan], StudyPlan | None]
    parts: Callable[[Trial, Defended], Iterator[Part]]


def studied_rows(trial: Trial, count: int) -> Samples:
    """Return `count` rows of the trial's test part, or all there are: the same ones for every model and study."""
    test = trial.split.test.to(trial.device)
    if count >= len(test):
        return test
    order = torch.randperm(len(test), generator=generator(trial.seed, "studied rows"))
    return test.take(sorted(order[:count].tolist()))
