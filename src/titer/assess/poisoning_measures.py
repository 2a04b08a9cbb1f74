"""What is measured of a poisoned training: accuracy, what the attacker wanted, and the rows that a cleaner finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from titer.assess.judge import predict
from titer.core.model import Model
from titer.core.protocols import Poisoned
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Region
from titer.engine.poisoning import inside
from titer.stats.alarms import auroc

Aim = Literal["trigger", "aimed", "pair", "any"]
FALSE_ALARMS = 0.05
"""The share of untouched training rows that may be called suspicious where a detection rate is told."""


def aim_of(poisoned: Poisoned) -> Aim:
    """Return what the attacker wants: an answer to a trigger, to a few inputs, to a whole class, or any error."""
    if poisoned.trigger is not None:
        return "trigger"
    if poisoned.aimed is not None:
        return "aimed"
    return "any" if poisoned.source is None or poisoned.target is None else "pair"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a model trained on the poisoned part is shown.

    `test` are clean test rows; `shown` [n, ...] the inputs to which the attacker wants `target` as answer, empty where
    any error will do, with the patients they are of; `refused` counts rows that cannot carry the trigger inside the
    domain's rules. `attacked` is the class whose accuracy is told apart, None where there is none.
    """

    test: Samples
    shown: Tensor
    patients: tuple[str, ...]
    target: int | None
    attacked: int | None
    refused: int
    seed: int


def judged(poisoned: Poisoned, test: Samples, domain: tuple[Region, ...], seed: int) -> Judged:
    """Return what a model trained on this part is judged on: rows that are of the target anyway are left out."""
    shown, refused = test.take([]), 0
    if poisoned.aimed is not None:
        shown = poisoned.aimed
    elif poisoned.target is not None and (poisoned.trigger is not None or poisoned.source is not None):
        own = test.y != poisoned.target if poisoned.source is None else test.y == poisoned.source
        shown = test.take(own.nonzero().flatten().tolist())
    x = shown.x
    if poisoned.trigger is not None and len(shown):
        x = poisoned.trigger(shown.x)
        kept = inside(domain, x, shown.x).nonzero().flatten().tolist()
        refused, shown, x = len(shown) - len(kept), shown.take(kept), x[kept]
    return Judged(
        test=test,
        shown=x,
        patients=shown.patients,
        target=poisoned.target,
        attacked=poisoned.target if poisoned.source is None else poisoned.source,
        refused=refused,
        seed=seed,
    )


def measured(model: Model, on: Judged) -> dict[str, float]:
    """Return shares: `clean_accuracy`, `class_accuracy` of the attacked class, `success`; NaN where there is no row."""
    said = predict(model, on.test.x, rng=generator(on.seed, "clean")).classes
    right = said.eq(on.test.y).float().cpu().numpy()
    own = np.zeros(len(right), dtype=bool) if on.attacked is None else (on.test.y == on.attacked).cpu().numpy()
    success = float("nan")
    if len(on.shown):
        found = predict(model, on.shown, rng=generator(on.seed, "shown")).classes
        success = float(found.eq(on.target or 0).float().mean())
    return {
        "clean_accuracy": float(right.mean()),
        "class_accuracy": float(right[own].mean()) if own.any() else float("nan"),
        "success": success,
    }


def counted(on: Judged) -> dict[str, int]:
    """Return how many patients each share is of."""
    rows = range(len(on.test)) if on.attacked is None else (on.test.y == on.attacked).nonzero().flatten().tolist()
    return {
        "n": len(set(on.test.patients)),
        "n_class": 0 if on.attacked is None else len({on.test.patients[row] for row in rows}),
        "n_success": len(set(on.patients)),
        "refused_rows": on.refused,
    }


def detected(scores: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    """Return the share of the changed rows bool[N] found at 5 % false alarms, and the AUROC, of scores float[N].

    The threshold is the one that leaves 5 % of the untouched rows above it: nobody who cleans knows it, so the rate
    says what the scores are worth, not what a cleaning finds.
    """
    if not changed.any() or changed.all():
        return {"detection_rate": float("nan"), "auroc": float("nan")}
    limit = np.quantile(scores[~changed], 1 - FALSE_ALARMS, method="higher")
    return {
        "detection_rate": float((scores[changed] > limit).mean()),
        "auroc": auroc(scores[~changed], scores[changed]),
    }


def removed(scores: np.ndarray, share: float) -> np.ndarray:
    """Return bool[N]: the rows that a cleaning leaves out, for scores float[N].

    They are those that are surely changed (infinity), and the highest others up to the share of all rows; a score that
    is the lowest of all says nothing against a row.
    """
    sure = np.isposinf(scores)
    order = np.argsort(-scores, kind="stable")[: round(share * len(scores))]
    most = np.zeros(len(scores), dtype=bool)
    most[order] = True
    found: np.ndarray = sure | (most & (scores > scores.min()))
    return found


def before(found: Mapping[str, float]) -> dict[str, Any]:
    """Return the measures of the model that was trained on clean rows, under their own names."""
    return {f"{name}_before": value for name, value in found.items()}
