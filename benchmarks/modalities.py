"""What every modality's plan reaches on its real data, beside what is asked of it.

    python benchmarks/modalities.py                    run what is left of each plan, then print the table
    python benchmarks/modalities.py --read             print the table of what was run
    python benchmarks/modalities.py --only ecg,notes   these plans alone

Every plan runs whole into `.cache/bench-modalities/NAME`; its report.html stands there. Domain rules are checked here
once more, on the adversarial inputs that the run kept, by the modality's own rules and not by the harness.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from titer.assess.manifest import hardware
from titer.assess.plan import Plan, load_plan
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.report.build import build
from titer.stats.intervals import over_trials

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".cache" / "bench-modalities"
WORST = "worst-case"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One plan: what its best undefended model must reach on clean data, and in how many minutes the plan must end."""

    plan: str
    metric: str
    least: float | None
    minutes: int


ASKED = (
    Asked(plan="quickstart", metric="balanced_accuracy", least=None, minutes=5),
    Asked(plan="ecg", metric="balanced_accuracy", least=0.84, minutes=5),
    Asked(plan="expression", metric="balanced_accuracy", least=0.95, minutes=5),
    Asked(plan="late-fusion", metric="balanced_accuracy", least=None, minutes=5),
    Asked(plan="methylation", metric="balanced_accuracy", least=0.93, minutes=5),
    Asked(plan="genotypes", metric="balanced_accuracy", least=0.97, minutes=5),
    Asked(plan="notes", metric="balanced_accuracy", least=0.94, minutes=20),
    Asked(plan="brain-mri", metric="balanced_accuracy", least=0.86, minutes=20),
    Asked(plan="dermatology", metric="auroc", least=0.75, minutes=20),
    Asked(plan="anomaly", metric="auroc", least=None, minutes=20),
)


def main() -> None:
    """Run the plans and print the table."""
    options = _options()
    chosen = [one for one in ASKED if not options.only or one.plan in options.only.split(",")]
    lines = [line for one in chosen for line in _lines(one, read_only=options.read, workers=options.workers)]
    print(f"{json.dumps(hardware('cpu'))}\n")
    columns = ("plan", "model", "trials", "clean, asked", "clean, reached", "worst case, undefended", "rules kept")
    print(f"| {' | '.join(columns)} | CPU minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--only", default="", help="names of plans, with commas between them")
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


def _lines(asked: Asked, *, read_only: bool, workers: int | None) -> Iterator[str]:
    """Yield one line of the table for each model of a plan; nothing for a plan that was not run."""
    plan, out = load_plan(HERE.parent / "plans" / f"{asked.plan}.toml"), WORK / asked.plan
    if not read_only:
        try:
            assess(plan, out, workers=workers)
            build(out)
        except SpecError as error:
            yield f"| {asked.plan} | not run: {error} | | | | | | |"
            return
    if not (out / "metrics.parquet").is_file():
        return
    metrics = pd.read_parquet(out / "metrics.parquet")
    kept, spent = _rules_kept(plan, out), _cpu_minutes(out)
    least = "-" if asked.least is None else f">= {100 * asked.least:g} %"
    for model in dict.fromkeys(metrics["model"].astype(str)):
        rows = metrics[(metrics["model"] == model) & (metrics["group"] == "all") & (metrics["defense"] == "none")]
        clean = _mean(rows[rows["attack"] == "none"][asked.metric])
        yield (
            f"| {asked.plan} | {model} | {plan.trials} | {asked.metric.replace('_', ' ')} {least} | {clean} | "
            f"{_worst(rows)} | {kept} | {spent} of {2 * asked.minutes} |"
        )


def _worst(rows: pd.DataFrame) -> str:
    """Return the accuracy left in the worst case under each budget."""
    worst = rows[(rows["attack"] == WORST) & (rows["source"] == "none")]
    return "; ".join(f"{name}: {_mean(some['accuracy'])}" for name, some in worst.groupby("threat", sort=False))


def _mean(values: pd.Series) -> str:
    found = over_trials(values.to_numpy(dtype=np.float64), bounds=(0.0, 1.0))
    spread = "" if np.isnan(found.low) else f" ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return f"{100 * found.mean:.1f} %{spread}"


def _rules_kept(plan: Plan, out: Path) -> str:
    """Return how many of the kept adversarial inputs keep every rule of the domain, and of how many."""
    data = plan.load_data()
    kept = looked_at = 0
    for path in sorted((out / "examples").glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            clean, moved = (torch.from_numpy(file[name]) for name in ("clean", "adversarial"))
        holds = torch.stack([rule.contains(moved, clean) for rule in data.domain]).all(0)
        kept, looked_at = kept + int(holds.sum()), looked_at + len(holds)
    return f"{kept} of {looked_at}"


def _cpu_minutes(out: Path) -> str:
    """Return the CPU minutes of all cells, training included: two cores take half of it."""
    spent = 0.0
    seen: set[str] = set()
    for path in (out / "cells").glob("*.json"):
        note = json.loads(path.read_text())
        spent += note.get("cpu_seconds", 0.0)
        for one in note.get("training", ()):
            key = json.dumps(one, sort_keys=True)
            spent += 0.0 if key in seen else one["cpu_seconds"]
            seen.add(key)
    return f"{spent / 60:.1f}"


if __name__ == "__main__":
    main()
