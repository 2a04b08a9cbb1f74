"""What every modality's plan reaches on its real data, beside what is asked of it.

    python benchmarks/modalities.py                    run what is left of each plan, then print the table
    python benchmarks/modalities.py --read             print the table of what was run
    python benchmarks/modalities.py --only ecg,notes   these plans alone
    python benchmarks/modalities.py --trials 1         fewer trials than the plans have, in a folder of their own

Every plan runs whole into `.cache/bench-modalities/NAME`; its report.html stands there. The table, of all plans that
have run so far, is written after each of them to `benchmarks/results/DATE-modalities.md` (`--table` names another
file): a part may run today and the rest tomorrow, and what is finished is not run again. Wall seconds are noted for
each sitting of a plan. Domain rules are checked here once more, on the adversarial inputs that the run kept, by the
modality's own rules and not by the harness.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
    Asked(plan="ecg-gru", metric="balanced_accuracy", least=None, minutes=5),
    Asked(plan="expression", metric="accuracy", least=0.95, minutes=5),
    Asked(plan="late-fusion", metric="balanced_accuracy", least=None, minutes=5),
    Asked(plan="methylation", metric="accuracy", least=0.93, minutes=5),
    Asked(plan="genotypes", metric="accuracy", least=0.97, minutes=5),
    Asked(plan="notes", metric="accuracy", least=0.94, minutes=20),
    Asked(plan="brain-mri", metric="accuracy", least=0.86, minutes=20),
    Asked(plan="brain-mri-volumes", metric="balanced_accuracy", least=None, minutes=20),
    Asked(plan="brain-mri-segmentation", metric="dice", least=None, minutes=20),
    Asked(plan="dermatology", metric="auroc", least=0.75, minutes=20),
    Asked(plan="anomaly", metric="auroc", least=None, minutes=20),
    Asked(plan="poisoning", metric="accuracy", least=None, minutes=20),
)
SHARE = 0.01
"""Of the training rows that a backdoor poisons, at which it is asked for something."""

COLUMNS = (
    "plan",
    "model",
    "trials",
    "clean, asked",
    "clean, that reached",
    "clean accuracy",
    "clean balanced accuracy",
    "worst case, undefended",
    "rules kept",
    "wall minutes, asked",
    "wall minutes",
    "CPU minutes",
)


def main() -> None:
    """Run the plans, and write the table after each of them; then print it."""
    options = _options()
    names = {one.plan for one in ASKED}
    only = set(filter(None, options.only.split(","))) or names
    if only - names:
        raise SystemExit(f"--only has {', '.join(sorted(only - names))}: allowed are {', '.join(sorted(names))}")
    work = WORK if options.trials is None else WORK.with_name(f"{WORK.name}-{options.trials}")
    refused = {}
    for asked in ASKED:
        if asked.plan in only and not options.read:
            refused[asked.plan] = _run(_plan(asked, options.trials), work / asked.plan, options.workers)
            options.table.write_text(_table(work, options.trials, names, refused))
    print(_table(work, options.trials, only, refused))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", action="store_true", help="run nothing, write no file")
    parser.add_argument("--only", default="", help="names of plans, with commas between them")
    parser.add_argument("--trials", type=int, help="of each plan; without it, those that the plan has")
    parser.add_argument("--workers", type=int)
    table = HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}-modalities.md"
    parser.add_argument("--table", type=Path, default=table, help="the file that is written")
    return parser.parse_args()


def _plan(asked: Asked, trials: int | None) -> Plan:
    plan = load_plan(HERE.parent / "plans" / f"{asked.plan}.toml")
    return plan if trials is None else replace(plan, trials=trials)


def _run(plan: Plan, out: Path, workers: int | None) -> str:
    """Run what is left of the plan, add the wall seconds to those of earlier sittings, return why it cannot run."""
    began = time.monotonic()
    try:
        assess(plan, out, workers=workers)
        build(out)
    except SpecError as error:
        return str(error)
    finally:
        if out.is_dir():
            note = out / "wall.json"
            before = json.loads(note.read_text()) if note.is_file() else []
            note.write_text(json.dumps([*before, round(time.monotonic() - began, 1)]))
    return ""


def _table(work: Path, trials: int | None, only: set[str], refused: dict[str, str]) -> str:
    """Return the page: one line for each model of each plan that was run."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for asked in ASKED:
        if asked.plan not in only:
            continue
        if refused.get(asked.plan):
            lines.append(f"| {asked.plan} | not run: {refused[asked.plan]} " + "| " * (len(COLUMNS) - 2) + "|")
        elif (work / asked.plan / "metrics.parquet").is_file():
            lines += _lines(asked, _plan(asked, trials), work / asked.plan)
    fewer = "" if trials is None else f" --trials {trials}"
    return (
        "# Every modality's plan\n\n"
        f"Printed by `python benchmarks/modalities.py{fewer}`. Machine: {json.dumps(hardware('cpu'))}.\n"
        "Means over trials; in brackets 95 % intervals. Wall minutes are those of every sitting, in order.\n\n"
        + "\n".join(lines)
        + "\n"
        + _backdoors(work, only)
    )


def _lines(asked: Asked, plan: Plan, out: Path) -> Iterator[str]:
    """Yield one line of the table for each model of a plan."""
    metrics = pd.read_parquet(out / "metrics.parquet")
    kept, spent, wall = _rules_kept(plan, out), _cpu_minutes(out), _wall_minutes(out)
    least = "-" if asked.least is None else f">= {100 * asked.least:g} %"
    for model in dict.fromkeys(metrics["model"].astype(str)):
        rows = metrics[(metrics["model"] == model) & (metrics["group"] == "all") & (metrics["defense"] == "none")]
        clean = _with_dice(rows[rows["attack"] == "none"])
        reached = " | ".join(_mean(clean[name]) for name in (asked.metric, "accuracy", "balanced_accuracy"))
        yield (
            f"| {asked.plan} | {model} | {plan.trials} | {_said(asked.metric)} {least} | {reached} | "
            f"{_worst(rows)} | {kept} | <= {asked.minutes} | {wall} | {spent} |"
        )


def _said(metric: str) -> str:
    return {"auroc": "AUROC", "dice": "Dice"}.get(metric, metric.replace("_", " "))


def _with_dice(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the mean Dice of masks: their error is 1 - Dice, that of classes is NaN."""
    return rows.assign(dice=1.0 - rows["clean_error"].astype(float))


def _backdoors(work: Path, only: set[str]) -> str:
    """Return the table of backdoors with a hundredth of the rows poisoned; empty where none has run."""
    path = work / "poisoning" / "poisoning.parquet"
    if "poisoning" not in only or not path.is_file():
        return ""
    rows = pd.read_parquet(path)
    rows = rows[np.isclose(rows["share"], SHARE) & rows["poison"].isin(_backdoor_labels())]
    lines = [
        f"\n## Backdoors, {100 * SHARE:g} % of the training rows poisoned\n",
        "Asked: success >= 90 %, at most 1 point of clean accuracy lost, and of spectral signatures or activation "
        "clustering one that finds >= 80 % of the poisoned rows at 5 % false alarms.\n",
        "| poison | defense | success | points of clean accuracy lost | found |\n| --- | --- | --- | --- | --- |",
    ]
    for (poison, defense), some in rows.groupby(["poison", "defense"], sort=False):
        bare, searched = some[some["cleaner"] == "none"], some[some["cleaner"] != "none"]
        lost = 100 * float((bare["clean_accuracy_before"] - bare["clean_accuracy"]).mean())
        found = searched.groupby("cleaner", sort=False)["detection_rate"]
        told = "; ".join(f"{name}: {_mean(rate)}" for name, rate in found)
        lines.append(f"| {poison} | {defense} | {_mean(bare['success'])} | {lost:.2f} | {told} |")
    return "\n".join(lines) + "\n"


def _backdoor_labels() -> set[str]:
    """Return the labels of the plan's backdoors."""
    table = load_plan(HERE.parent / "plans" / "poisoning.toml").poisoning
    assert table is not None
    return {
        str(spec.get("label", "backdoor"))
        for spec in table.poisons
        if isinstance(spec, dict) and spec["name"] == "backdoor"
    }


def _worst(rows: pd.DataFrame) -> str:
    """Return the accuracy left in the worst case under each budget."""
    worst = rows[(rows["attack"] == WORST) & (rows["source"] == "none")]
    return "; ".join(f"{name}: {_mean(some['accuracy'])}" for name, some in worst.groupby("threat", sort=False))


def _mean(values: pd.Series) -> str:
    known = values.to_numpy(dtype=np.float64)
    if np.isnan(known).all():
        return "-"
    found = over_trials(known, bounds=(0.0, 1.0))
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


def _wall_minutes(out: Path) -> str:
    """Return the wall minutes of each sitting of the plan."""
    note = out / "wall.json"
    return " + ".join(f"{one / 60:.1f}" for one in json.loads(note.read_text())) if note.is_file() else "not timed"


def _cpu_minutes(out: Path) -> str:
    """Return the CPU minutes of all cells, those of a poisoning study and training included."""
    spent = 0.0
    seen: set[str] = set()
    for path in [*(out / "cells").glob("*.json"), *(out / "poisoning" / "cells").glob("*.json")]:
        note = json.loads(path.read_text())
        spent += note.get("cpu_seconds", 0.0)
        for one in note.get("training", ()):
            key = json.dumps(one, sort_keys=True)
            spent += 0.0 if key in seen else one["cpu_seconds"]
            seen.add(key)
    return f"{spent / 60:.1f}"


if __name__ == "__main__":
    main()
