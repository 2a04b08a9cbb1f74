"""The table at the end of an assessment: robust accuracy of every defended model at every budget."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

_WIDE = 140


def print_summary(folder: Path) -> None:
    """Print one line per model and defence: clean accuracy, then the worst case over attacks at every budget."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    metrics = pd.read_parquet(folder / "metrics.parquet")
    doubts = json.loads((folder / "sanity.json").read_text())["checks"]
    failed = {(one["model"], one["defense"]) for one in doubts if one["result"] == "fail"}
    overall = metrics[(metrics["group"] == "all") & (metrics["source"] == metrics["defense"])]
    threats = [one["label"] for one in json.loads((folder / "manifest.json").read_text())["threats"]]
    table = Table(title="Accuracy in %, mean ± SD over trials; worst case over the plan's attacks")
    for column in ("model", "defense", "clean", *threats, "doubts"):
        table.add_column(column, justify="left" if column in ("model", "defense", "doubts") else "right")
    for (model, defense), rows in overall.groupby(["model", "defense"], sort=False):
        cells = [_spread(rows[rows["attack"] == "none"])]
        cells += [_spread(rows[(rows["attack"] == "worst-case") & (rows["threat"] == one)]) for one in threats]
        doubt = "overestimated" if (model, defense) in failed else ""
        table.add_row(str(model), str(defense), *cells, doubt)
    console.print(table)


def _spread(rows: pd.DataFrame) -> str:
    values = 100 * rows["accuracy"]
    if values.empty:
        return "not attacked"
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")
