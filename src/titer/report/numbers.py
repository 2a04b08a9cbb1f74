"""The measured numbers with their intervals, looked up by what they belong to."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from titer.report.load import RunFolder
from titer.report.study import UNDEFENDED, WORST

_SHARES = frozenset((
    "accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "ece", "attack_success_rate",
    "put_back_share",
))  # fmt: skip
_PLAIN = ("median_distance", "median_queries", "clean_error", "adversarial_error", "mean_forwards", "mean_backwards")
Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        mean: mean over trials, None where it is undefined.
        low: lower bound, None where there is no interval.
        high: upper bound, None where there is no interval.
        over: what the interval covers: `trials`, `patients`, or empty where there is none.
        sd: standard deviation over trials, None for a single trial.
        n_trials: number of trials.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    over: str = ""
    sd: float | None = None
    n_trials: int = 0


NOTHING = Estimate()


class Numbers:
    """Every summary number of a run.

    Where a number has two intervals, over trials and over patients, the wider is taken: neither
    source of doubt alone covers the other, and the narrower would flatter.
    """

    def __init__(self, run: RunFolder) -> None:
        self._summary: dict[Key, Mapping[str, Any]] = {_key(row): row for row in run.statistics["summary"]}
        self._before = {
            tuple(str(row.get(name)) for name in ("model", "defense", "attack", "threat")): _number(
                row.get("clean_mean")
            )
            for row in run.statistics.get("before_after") or []
        }
        metrics = run.metrics
        self._overall = metrics[(metrics["group"] == "all") & (metrics["value"] == "all")]
        names = ["model", "defense", "source", "attack", "threat"]
        values = [name for name in self._overall.columns if name in _SHARES or name in _PLAIN]
        means = self._overall.groupby(names, sort=False, dropna=False)[values].mean()
        rows = means.astype(float).to_dict("records")
        self._means: dict[tuple[str, ...], dict[Hashable, float]] = {
            tuple(map(str, key)): row for key, row in zip(means.index, rows, strict=True)
        }

    def get(self, model: str, defense: str, attack: str, threat: str, metric: str, *, source: str = "") -> Estimate:
        """Return one number; `source` is the defence itself (an adaptive attacker) unless given."""
        found = self._summary.get((model, defense, source or defense, attack, threat, metric))
        if found is None:
            return self._plain(model, defense, source or defense, attack, threat, metric)
        low, high, over = _wider(found)
        share = metric in _SHARES
        return Estimate(
            mean=_number(found.get("mean")),
            low=_within(low) if share else low,
            high=_within(high) if share else high,
            over=over,
            sd=_number(found.get("sd")),
            n_trials=int(found.get("n_trials") or 0),
        )

    def clean(self, model: str, defense: str, metric: str = "accuracy") -> Estimate:
        """Return a number without attack."""
        return self.get(model, defense, "none", "none", metric)

    def clean_mean(self, model: str, defense: str, attack: str, threat: str) -> float | None:
        """Return what statistics.json sets an adaptive attack against, None where it does not say."""
        return self._before.get((model, defense, attack, threat))

    def worst(self, model: str, defense: str, threat: str, metric: str = "accuracy") -> Estimate:
        """Return a number in the worst case over all attacks by an attacker who knows the defence."""
        return self.get(model, defense, WORST, threat, metric)

    def transferred(self, model: str, defense: str, threat: str) -> tuple[Estimate, str]:
        """Return the lowest accuracy under inputs found on the undefended model, and the attack that found them."""
        attacks = [key[3] for key in self._means if key[:3] == (model, defense, UNDEFENDED) and key[4] == threat]
        found = [
            (self.get(model, defense, attack, threat, "accuracy", source=UNDEFENDED), attack) for attack in attacks
        ]
        usable = [(one, attack) for one, attack in found if one.mean is not None and attack not in ("none", WORST)]
        if defense == UNDEFENDED or not usable:
            return NOTHING, ""
        return min(usable, key=lambda pair: pair[0].mean or 0.0)

    def attacks(self, model: str, defense: str, threat: str) -> tuple[str, ...]:
        """Return the attacks that ran on a defence with an attacker who knows it, the worst case left out."""
        return tuple(
            key[3]
            for key in self._means
            if key[:3] == (model, defense, defense) and key[4] == threat and key[3] not in ("none", WORST)
        )

    def _plain(self, *key: str) -> Estimate:
        """Return the mean over trials off the metrics, with no interval: the statistics do not have this number."""
        row = self._means.get(key[:5])
        value = _number(row.get(key[5])) if row is not None else None
        return Estimate(mean=value) if value is not None else NOTHING


def _key(row: Mapping[str, Any]) -> Key:
    model, defense, attack = str(row.get("model")), str(row.get("defense")), str(row.get("attack"))
    source = str(row.get("source") or defense)
    return model, defense, source, attack, str(row.get("threat")), str(row.get("metric"))


def _wider(row: Mapping[str, Any]) -> tuple[float | None, float | None, str]:
    """Return the wider of the two intervals and what it covers."""
    trials = (_number(row.get("ci_low")), _number(row.get("ci_high")))
    pooled = (_number(row.get("pooled_ci_low")), _number(row.get("pooled_ci_high")))
    width = [high - low if low is not None and high is not None else -1.0 for low, high in (trials, pooled)]
    if max(width) < 0:
        return None, None, ""
    return (*trials, "trials") if width[0] >= width[1] else (*pooled, "patients")


def _within(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, str):
        return None
    result = float(value)
    return result if math.isfinite(result) else None
