"""What a bout came to, judged anew: every find is checked against range, budget and the network in float32."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attack_bench.jobs import JOBS
from attack_bench.subjects import load_rows
from titer.stats.intervals import Interval, clopper_pearson

SLACK = 1e-6
"""Rounding that a library may leave in inputs of [0, 1]."""

CHANGED = 1e-3
"""A pixel that moved by less than a quarter of a grey level is not counted as changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One contestant's row.

    `won` bool[N]: rows that end up wrong, those wrong from the start included; None after an error. `distance` is the
    median over rows right from the start, a miss counting as infinite; `queries` likewise over the rows won.
    """

    record: dict[str, Any]
    won: Tensor | None = None
    interval: Interval | None = None
    distance: float | None = None
    queries: float | None = None
    success: float | None = None
    outside: int = 0

    @property
    def error(self) -> str | None:
        """What went wrong, in the library's words."""
        found: str | None = self.record["error"]
        return found

    @property
    def bound(self) -> float | None:
        """CPU seconds of the bound: nominal steps of forward and backward; for query attacks its own forward passes."""
        job = JOBS[self.record["job"]]
        if job.queries:
            return float(self.record["forwards"] * self.record["forward_pass_seconds"] / self.record["rows"])
        return None if job.steps is None else float(job.steps * self.record["both_passes_seconds"])

    @property
    def cpu(self) -> float:
        """The attack's CPU seconds."""
        return float(self.record["cpu_seconds"])

    @property
    def robust_accuracy(self) -> float:
        """Share of rows right after the attack."""
        assert self.won is not None
        return float((~self.won).float().mean())


def read(path: Path) -> Result:
    """Read and judge the bout of `<path>.json` and `<path>.npz`."""
    record = json.loads(path.with_suffix(".json").read_text())
    if record["error"] is not None:
        return Result(record=record)
    with np.load(path.with_suffix(".npz")) as kept:
        x_adv, queries = torch.from_numpy(kept["x_adv"]), torch.from_numpy(kept["queries"])
    return _judged(record, x_adv, queries)


def _judged(record: dict[str, Any], x_adv: Tensor, queries: Tensor) -> Result:
    job = JOBS[record["job"]]
    net, x, y = load_rows(Path(record["subject"]), record["rows"])
    with torch.no_grad():
        right, hit = net(x).argmax(1) == y, net(x_adv).argmax(1) != y
    allowed = _allowed(x_adv, x, record["eps"])
    won = ~right | (hit & allowed)
    reached = won & right
    sizes = _sizes(job.norm, x_adv, x).masked_fill(~reached, float("inf"))
    counted = queries[reached] if job.queries else torch.zeros(0)
    return Result(
        record=record,
        won=won,
        interval=clopper_pearson(int((~won).sum()), len(won)),
        distance=_median(sizes[right]) if record["eps"] is None else None,
        queries=_median(counted) if len(counted) else None,
        success=float(reached[right].float().mean()),
        outside=int((~allowed).sum()),
    )


def _allowed(x_adv: Tensor, x: Tensor, eps: float | None) -> Tensor:
    """Return bool[N]: finite, in [0, 1], and within eps (Linf, in 255ths) where there is a budget."""
    flat = x_adv.flatten(1)
    inside = flat.isfinite().all(1) & (flat >= -SLACK).all(1) & (flat <= 1 + SLACK).all(1)
    if eps is None:
        return inside
    return inside & ((x_adv - x).flatten(1).abs().amax(1) <= eps / 255 + SLACK)


def _sizes(norm: str, x_adv: Tensor, x: Tensor) -> Tensor:
    change = (x_adv - x).flatten(1)
    if norm == "l0":
        return (change.abs() > CHANGED).sum(1).float()
    return torch.linalg.vector_norm(change, ord=2 if norm == "l2" else float("inf"), dim=1)


def _median(values: Tensor) -> float:
    return float(np.median(values.double().numpy()))
