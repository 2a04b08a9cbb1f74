"""What the defences, certifiers and detectors reach on chest X-rays, beside what is asked of them.

    python benchmarks/defenses.py                 run what is left of five trials, then print the table
    python benchmarks/defenses.py --read          print the table of what was run
    python benchmarks/defenses.py --trials 3 --all   every defence of plans/defenses.toml

Runs `plans/defenses.toml`, with the defences that a figure is asked of, into `.cache/bench-defenses`; every number of
the table is read off that run folder, whose report.html has it with its intervals and doubts.
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from pathlib import Path

from defense_bench.figures import figures
from defense_bench.folder import Folder
from defense_bench.ranking import ranking_lines

from titer.assess.manifest import hardware
from titer.assess.plan import Plan, parse_plan
from titer.assess.run import assess
from titer.report.build import build

HERE = Path(__file__).resolve().parent
ASKED = (
    "none",
    "adversarial training",
    "fast adversarial training",
    "cost-sensitive training",
    "distillation",
    "hybrid",
    "randomized smoothing",
    "lipschitz",
    "interval training",
)


def main() -> None:
    """Run the plan and print the table."""
    options = _options()
    if not options.read:
        assess(_plan(options), options.work, workers=options.workers)
        build(options.work)
    folder = Folder.read(options.work)
    head = f"{folder.manifest['finished'][:10]}, {json.dumps(hardware('cpu'))}, {folder.trials} trials, "
    print(head + f"{folder.manifest['wall_seconds'] / 60:.0f} min of wall time in the last call\n")
    print("| what | asked | reached |\n| --- | --- | --- |")
    for one in figures(folder):
        print(f"| {one.what} | {one.asked} | {one.reached} |")
    print("\n".join(ranking_lines(folder)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200, help="test images that each trial attacks")
    parser.add_argument("--all", action="store_true", help="every defence of the plan")
    parser.add_argument("--read", action="store_true", help="run nothing")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--work", type=Path, default=HERE.parent / ".cache" / "bench-defenses")
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> Plan:
    """Return the plan with other trials, rows and defences, as a text of its own: a run folder keeps what ran."""
    path = HERE.parent / "plans" / "defenses.toml"
    head, *blocks = path.read_text().split("[[defenses]]\n")
    head = re.sub(r"(?m)^trials = \d+$", f"trials = {options.trials}", head)
    head = re.sub(r"(?m)^test_rows = \d+$", f"test_rows = {options.rows}", head)
    kept = [one for one in blocks if options.all or tomllib.loads(one)["label"] in ASKED]
    text = "[[defenses]]\n".join([head, *kept])
    return parse_plan(tomllib.loads(text), text.encode(), path.parent)


if __name__ == "__main__":
    main()
