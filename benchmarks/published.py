"""What stands beside the figures of three papers of 2025, where no ready plan measures it.

    python benchmarks/published.py                     run what is left of each plan, then print the tables
    python benchmarks/published.py --only densenet     these plans alone, with commas between them

Each plan of `benchmarks/published` runs into `.cache/bench-published/NAME`. A line is one model, one defence, and one
attack that knows it. Means and standard deviations over trials. Rises are points under attack less points without;
FPR and FNR of more than two classes are means over the classes, one against the rest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from titer.assess.manifest import hardware
from titer.assess.plan import load_plan
from titer.assess.run import assess

HERE = Path(__file__).resolve().parent
PLANS = HERE / "published"
WORK = HERE.parent / ".cache" / "bench-published"
KEYS = ["model", "defense", "attack", "threat"]
HEAD = (*KEYS, "clean", "attacked", "attack success", "AUROC drop", "FPR rise", "FNR rise")


def main() -> None:
    """Run the plans, and write the tables of all that have run after each of them; then print them."""
    names = sorted(path.stem for path in PLANS.glob("*.toml"))
    options = _options()
    only = [name for name in options.only.split(",") if name] or names
    if set(only) - set(names):
        raise SystemExit(f"--only has {', '.join(sorted(set(only) - set(names)))}: allowed are {', '.join(names)}")
    for name in only:
        assess(load_plan(PLANS / f"{name}.toml"), WORK / name, workers=options.workers)
        options.table.write_text(_page(names))
    print(_page(only))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of plans, with commas between them")
    parser.add_argument("--workers", type=int)
    table = HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}-published.md"
    parser.add_argument("--table", type=Path, default=table, help="the file that is written")
    return parser.parse_args()


def _page(names: list[str]) -> str:
    tables = "\n".join(_table(name) for name in names if (WORK / name / "metrics.parquet").is_file())
    return (
        "# Beside published figures\n\n"
        f"Printed by `python benchmarks/published.py`. Machine: {json.dumps(hardware('cpu'))}.\n"
        "Means ± standard deviations over trials, in %; drops and rises in points.\n\n" + tables
    )


def _table(name: str) -> str:
    plan = load_plan(PLANS / f"{name}.toml")
    metrics = pd.read_parquet(WORK / name / "metrics.parquet")
    lines = [f"| {' | '.join(_cells(row))} |" for row in _rows(metrics[metrics["group"] == "all"])]
    rows = f"{plan.trials} trials" if plan.trials > 1 else "one trial"
    said = f"{rows}, {plan.test_rows or 'all'} test rows each"
    return f"## {name}: {said}\n\n| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}\n" + "\n".join(lines) + "\n"


def _rows(metrics: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.DataFrame, pd.DataFrame]]:
    """Yield the keys of each attack that knows the defence, its trials, and the same trials without attack."""
    metrics = metrics.assign(**{key: metrics[key].astype(str) for key in (*KEYS, "source")})
    clean = metrics[metrics["attack"] == "none"]
    adaptive = metrics[(metrics["attack"] != "none") & (metrics["source"] == metrics["defense"])]
    for keys, attacked in adaptive.groupby(KEYS, sort=False):
        own = clean[(clean["model"] == keys[0]) & (clean["defense"] == keys[1])]
        yield keys, own.set_index("trial"), attacked.set_index("trial")


def _cells(row: tuple[tuple[str, ...], pd.DataFrame, pd.DataFrame]) -> list[str]:
    keys, clean, attacked = row
    return [
        *keys,
        _spread(clean["accuracy"]),
        _spread(attacked["accuracy"]),
        _spread(attacked["attack_success_rate"]),
        _spread(clean["auroc"] - attacked["auroc"]),
        _spread(attacked["fpr"] - clean["fpr"]),
        _spread(attacked["fnr"] - clean["fnr"]),
    ]


def _spread(values: pd.Series) -> str:
    known = 100 * values.to_numpy(dtype=np.float64)
    deviation = f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
    return f"{known.mean():.1f}{deviation}"


if __name__ == "__main__":
    main()
