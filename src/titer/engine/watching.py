"""Detectors at work: alarms with thresholds, a model that holds inputs back, and the attacker who knows of both.

`guarded` turns a model and its detectors into one model with a further answer, "held back". So every attack, and
the judge, runs on it unchanged, and a find counts only where the model is wrong and no alarm is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Guarded
from titer.core.protocols import Alarm, Attack
from titer.core.threat import Logits, Threat
from titer.engine.ensemble import Ensemble
from titer.engine.features import in_parts
from titer.stats.alarms import thresholds
from titer.threats.unseen import Unseen, held_back

WEIGHTS: tuple[float | None, ...] = (None, 1.0, 10.0, 100.0)
"""What an evading attack tries one after another: each step one aim, then both together at three prices."""

_LOUDEST = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """An alarm with its threshold: it is raised where the score is above it.

    `spread` is how far the threshold lies above the median of clean scores: the unit in which detectors are added up.
    """

    alarm: Alarm
    threshold: float
    spread: float

    def raised(self, x: Tensor) -> Tensor:
        """Return bool[N] for raw inputs x [N, ...]; a score that is no number raises the alarm."""
        return ~(in_parts(self.alarm.score, x) <= self.threshold)

    def excess(self, x: Tensor, *, differentiable: bool) -> Tensor:
        """Return float[N], how far the score is above the threshold, in spreads; its slope is the stand-in's."""
        score = self.alarm.score(x)
        if differentiable and self.alarm.smooth is not None:
            soft = self.alarm.smooth(x)
            score = soft + (score - soft).detach()
        found: Tensor = (score - self.threshold) / self.spread
        return torch.where(found.isfinite(), found, _LOUDEST)


def scores(alarms: Sequence[Alarm], x: Tensor) -> NDArray[np.float64]:
    """Return float64[N, D], the score of each row of raw inputs x [N, ...] by each of D alarms."""
    return np.stack([in_parts(alarm.score, x).double().cpu().numpy() for alarm in alarms], axis=1)


def calibrated(alarms: Sequence[Alarm], clean: Tensor, rate: float) -> tuple[Watch, ...]:
    """Return the alarms with thresholds at which together they hold back at most `rate` of clean inputs.

    Args:
        alarms: at least one; with several, each one's own rate is corrected so that any of them is raised at `rate`.
        clean: raw rows [N, ...] that neither model nor detectors were trained on (the validation part).
        rate: the false-positive rate, more than 0 and less than 1.

    Raises:
        Incompatible: too few clean rows for the rate, or a detector that was fitted on rows of another shape.
    """
    seen = scores(alarms, clean)
    limits = thresholds(seen, rate)
    spreads = np.maximum(limits - np.median(seen, axis=0), 1e-6 * np.maximum(np.abs(limits), 1e-6))
    return tuple(
        Watch(alarm=alarm, threshold=float(limit), spread=float(spread))
        for alarm, limit, spread in zip(alarms, limits, spreads, strict=True)
    )


def weighted(alarms: Sequence[Alarm], clean: Tensor, weights: Sequence[float] | None = None) -> Alarm:
    """Return one alarm: the weighted mean of the alarms' scores, each less its median and over its spread on `clean`.

    The spread is the distance from the median to the 95th percentile. `weights` are 0 or more, equal by default.
    """
    chosen = [1.0] * len(alarms) if weights is None else list(weights)
    if len(chosen) != len(alarms) or min(chosen, default=-1.0) < 0 or sum(chosen) <= 0:
        raise Incompatible(f"weights = {chosen}: allowed is a number from 0 up for each of {len(alarms)} detectors")
    seen = scores(alarms, clean)
    middle = np.median(seen, axis=0)
    spread = np.maximum(np.quantile(seen, 0.95, axis=0) - middle, 1e-12)
    shares = np.array(chosen) / sum(chosen)

    def combined(x: Tensor, *, soft: bool) -> Tensor:
        parts = [alarm.smooth if soft and alarm.smooth is not None else alarm.score for alarm in alarms]
        scaled = [
            float(w / s) * (part(x) - float(m)) for part, w, m, s in zip(parts, shares, middle, spread, strict=True)
        ]
        return torch.stack(scaled).sum(0)

    name = " + ".join(alarm.name for alarm in alarms)
    smooth = partial(combined, soft=True) if any(alarm.smooth is not None for alarm in alarms) else None
    return Alarm(name=name, score=partial(combined, soft=False), smooth=smooth)


def guarded(model: Model, watches: Sequence[Watch]) -> Model:
    """Return the model behind its detectors: logits [N, K + 1], the last one the largest exactly where one is raised.

    Attack it under a threat of `threats.unseen`. Its surrogate carries the detectors' differentiable stand-ins.

    Raises:
        Incompatible: no detector, or an output that has no further answer (a value, a mask).
    """
    if not watches:
        raise Incompatible("a guarded model needs one detector or more")
    if model.output not in ("classes", "labels"):
        raise Incompatible(f"inputs are held back from models of classes and findings, not of a {model.output}")

    def behind(logits: Logits, *, differentiable: bool) -> Logits:
        return lambda x: held_back(model.output, logits(x), excess(watches, x, differentiable=differentiable))

    draw, limited = model.draw, model.access != "gradient"
    return replace(
        model,
        name=f"{model.name} behind {', '.join(watch.alarm.name for watch in watches)}",
        logits=behind(model.exact or model.logits, differentiable=False),
        surrogate=None if limited else behind(model.surrogate or model.exact or model.logits, differentiable=True),
        draw=None if draw is None else lambda rng: behind(draw(rng), differentiable=not limited),
        net=None,
        rebuild=None,
        exact=None,
    )


def excess(watches: Sequence[Watch], x: Tensor, *, differentiable: bool) -> Tensor:
    """Return float[N], above 0 where any alarm is raised: the sum of what is above, or else what is nearest to it.

    The sum has a slope for each alarm that is raised; the largest alone would have that of one.
    """
    each = torch.stack([watch.excess(x, differentiable=differentiable) for watch in watches])
    highest = each.amax(0)
    return torch.where(highest > 0, each.clamp_min(0).sum(0), highest)


def evading(attack: Attack, weights: Sequence[float | None] = WEIGHTS) -> Ensemble:
    """Return the attack of an attacker who knows the detectors: run once for each weight, on the rows that survived.

    It takes a guarded model and a threat of `threats.unseen`.
    """
    if not isinstance(attack, Guarded):
        raise Incompatible("an evading attack is made of a registered one (core.plugins.make_attack)")
    parts = tuple(
        Guarded(name=f"{attack.name} evading", needs=attack.needs, run=_Weighted(run=attack, weight=weight))
        for weight in weights
    )
    return Ensemble(first=None, rest=parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighted:
    """An attack whose goal weighs the detectors in one way."""

    run: Attack
    weight: float | None

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        if not isinstance(threat.goal, Unseen):
            raise Incompatible("an evading attack needs a goal that names the detectors (threats.unseen)")
        return self.run(model, x, y, replace(threat, goal=replace(threat.goal, weight=self.weight)), rng=rng)
