"""Training and inference cost of a defence, relative to the undefended model."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from titer.report.study import UNDEFENDED


@dataclass(frozen=True, slots=True)
class Cost:
    """Mean CPU seconds over trials, and their ratio to the undefended model's; None where unknown.

    Attributes:
        training: CPU seconds of training, the base model's included where the defence builds on it.
        training_ratio: relative to the undefended model.
        inference: CPU seconds a sample.
        inference_ratio: relative to the undefended model.
    """

    training: float | None
    training_ratio: float | None
    inference: float | None
    inference_ratio: float | None


def relative_costs(costs: dict[str, Any], model: str, defense: str) -> Cost:
    """Return the cost of a defence; a training taken from the cache still counts the seconds it once took."""
    training, inference = costs.get("training") or [], costs.get("inference") or []
    train = _training(training, model, defense)
    infer = _mean(inference, model, defense, "cpu_seconds_per_sample")
    return Cost(
        training=train,
        training_ratio=_ratio(train, _training(training, model, UNDEFENDED)),
        inference=infer,
        inference_ratio=_ratio(infer, _mean(inference, model, UNDEFENDED, "cpu_seconds_per_sample")),
    )


def _training(rows: list[dict[str, Any]], model: str, defense: str) -> float | None:
    own = [row for row in rows if row.get("model") == model and row.get("defense") == defense]
    seconds = _mean(own, model, defense, "cpu_seconds")
    base = _mean(rows, model, UNDEFENDED, "cpu_seconds")
    if seconds is None or base is None or defense == UNDEFENDED:
        return seconds
    return seconds if any(row.get("includes_base") for row in own) else seconds + base


def _mean(rows: list[dict[str, Any]], model: str, defense: str, key: str) -> float | None:
    values = [
        float(row[key])
        for row in rows
        if row.get("model") == model and row.get("defense") == defense and row.get(key) is not None
    ]
    return fmean(values) if values else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
