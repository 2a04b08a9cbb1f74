"""Population drift: does a batch of a stream still come from the population that the model was validated on?"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.outputs import probabilities
from titer.core.plugins import Count, Share, detector
from titer.core.protocols import Drift, StreamAlarm, StreamDetector, TrainingData
from titer.core.randomness import derive
from titer.core.threat import Logits
from titer.engine.alarm import some
from titer.engine.features import answers, in_parts, penultimate
from titer.stats.drift import TwoSample, kolmogorov_smirnov, maximum_mean_discrepancy

_FEWEST = 5
_PERMUTATIONS = 4


@detector(
    "population-drift",
    paper="Rabanser, Günnemann, Lipton 2019, arXiv:1810.11953, sections 3.1 and 3.2; MMD: Gretton et al. 2012, JMLR 13",
    stream=True,
)
def population_drift(
    *,
    test: Literal["ks", "mmd"] = "ks",
    view: Literal["answers", "features"] = "answers",
    false_alarms: Share = 0.05,
    horizon: Count = 100,
    rows: Count = 500,
) -> StreamDetector:
    """Drift of the population, by batches of a stream.

    Each batch is compared with the validation part. Repeated looks are corrected (Bonferroni): within `horizon` batches
    the chance of any false alarm is at most `false_alarms`, however the looks depend on each other, as they do: all
    share one reference. Rows are taken to be independent: give one study a patient.

    Args:
        test: `ks`, Kolmogorov-Smirnov on each dimension, corrected for their number; `mmd`, the maximum mean
            discrepancy with permutations.
        view: what is compared: the model's `answers` (probabilities) or the penultimate `features`.
        false_alarms: the chance of a false alarm within the horizon.
        horizon: batches that the chance is shared among; a longer stream has that chance once a horizon.
        rows: validation rows that are kept as the reference, at most.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> StreamAlarm:
        part = some(train.validation, rows)
        if len(part) < _FEWEST:
            raise Incompatible(f"population-drift needs {_FEWEST} validation rows or more, and there are {len(part)}")
        see = _answered(model) if view == "answers" else penultimate(model, part.x)
        shape, reference = tuple(part.x.shape[1:]), _seen(see, part.x)
        seed = int(torch.randint(2**62, (1,), generator=rng))
        level = false_alarms / horizon

        def look(batch: Tensor, before: int) -> Drift:
            if tuple(batch.shape[1:]) != shape or len(batch) < _FEWEST:
                wanted = f"batches of {_FEWEST} rows or more of shape {shape}"
                raise Incompatible(f"population-drift takes {wanted}, not {tuple(batch.shape)}")
            found = _tested(test, reference, _seen(see, batch), level, derive(seed, before))
            return Drift(p_value=found.p_value, level=level, statistic=found.statistic)

        return StreamAlarm(name="population-drift", look=look)

    return run


def _tested(
    test: str, reference: NDArray[np.float64], batch: NDArray[np.float64], level: float, seed: int
) -> TwoSample:
    if test == "ks":
        return kolmogorov_smirnov(reference, batch)
    # Enough permutations that a p-value can come below the level of one look, with room to spare.
    return maximum_mean_discrepancy(reference, batch, permutations=int(_PERMUTATIONS / level), seed=seed)


def _answered(model: Model) -> Logits:
    """Return probabilities [N, K]; of two classes the second says nothing new, and is left out of the count."""

    def see(x: Tensor) -> Tensor:
        chances = probabilities(model.output, answers(model, x))
        wide = chances.flatten(2).mean(2) if model.output == "mask" else chances
        return wide[:, 1:] if model.output in ("classes", "mask") else wide

    return see


def _seen(see: Logits, x: Tensor) -> NDArray[np.float64]:
    return in_parts(see, x).double().cpu().numpy()
