"""A run folder as the figures read it: statistics and studies, each number with its interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titer.stats.intervals import over_trials

THREAT = "linf 8/255"
WORST = "worst-case"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The tables of one run."""

    manifest: Mapping[str, Any]
    report: Mapping[str, Any]
    metrics: pd.DataFrame
    studies: Mapping[str, pd.DataFrame]
    parts: Mapping[str, list[dict[str, Any]]]

    @classmethod
    def read(cls, path: Path) -> Folder:
        """Read the folder of a finished run with its report."""
        studies, parts = {}, {}
        for name in ("certification", "detection", "explanation"):
            if (path / f"{name}.parquet").is_file():
                studies[name] = pd.read_parquet(path / f"{name}.parquet")
                parts[name] = json.loads((path / f"{name}.json").read_text())["parts"]
        return cls(
            manifest=json.loads((path / "manifest.json").read_text()),
            report=json.loads((path / "report.json").read_text()),
            metrics=pd.read_parquet(path / "metrics.parquet"),
            studies=studies,
            parts=parts,
        )

    @property
    def trials(self) -> int:
        """Number of trials."""
        return int(self.manifest["trials"])

    def has(self, defense: str) -> bool:
        """Whether the run has the defence."""
        return defense in set(self.metrics["defense"])

    def row(self, defense: str) -> Mapping[str, Any]:
        """Return what the report says of a defence under the threat of the figures."""
        found: Mapping[str, Any] = next(
            one for one in self.report["defenses"] if (one["defense"], one["family"]) == (defense, "linf")
        )
        return found

    def metric(self, defense: str, name: str, *, attack: str = WORST, source: str | None = None) -> np.ndarray:
        """Return one measure of each trial, float[T]; attack `none` is without attack."""
        table = self.metrics
        wanted = (table["group"] == "all") & (table["defense"] == defense) & (table["attack"] == attack)
        wanted &= (table["source"] == (source or defense)) & (table["threat"].isin([THREAT, "none"]))
        return table[wanted].sort_values("trial")[name].to_numpy(dtype=np.float64)

    def section(self, name: str, defense: str, attack: str) -> Mapping[str, Any]:
        """Return the row of a section of the statistics."""
        found: Mapping[str, Any] = next(
            one
            for one in self.report["statistics"][name]
            if (one["defense"], one["attack"], one["threat"]) == (defense, attack, THREAT)
        )
        return found


def mean_of(values: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0), unit: str = "%") -> str:
    """Return `mean (95 % CI over trials)` of shares in per cent or points."""
    found = over_trials(values, bounds=bounds)
    mean, low, high = (100 * one for one in (found.mean, found.low, found.high))
    return f"{mean:.1f} {unit}" + ("" if np.isnan(low) else f" ({low:.1f} to {high:.1f})")
