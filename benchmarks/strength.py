"""What every attack reaches at its defaults on the chest X-ray network: the table of the attacks page.

    python benchmarks/strength.py [--rows 100] [--out docs/reference/attack-strength.md]

Same rows, same weights, every registered attack, in the first norm it knows; robust accuracy with its 95 % interval,
the median size of successful changes, and the passes that a row cost on average.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from titer.assess.judge import Attacked, attack_rows
from titer.assess.plan import load_plan
from titer.assess.trial import Trial, open_trial
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.places import weights_cache
from titer.core.plugins import make_attack
from titer.core.record import Samples
from titer.core.registry import SHELVES, Plugin
from titer.core.threat import Threat
from titer.stats.intervals import wilson
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import MutableMask

BUDGETS = {"linf": (8.0, "/255"), "l2": (1.0, "range"), "l1": (20.0, "range"), "l0": (20.0, "values")}
SLOW = {"autoattack": {"queries": 1000}}
"""What is cut so that the table takes minutes; it says so."""
HEAD = ("attack", "settings", "norm and budget", "right without defence", "right after adversarial training",
        "median change found", "forward passes", "backward passes")  # fmt: skip


def main() -> None:
    """Print the table, a row an attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trial = open_trial(load_plan(Path("plans/chest-xray.toml")), 0, cache=weights_cache())
    chosen = np.random.default_rng(0).permutation(len(trial.split.test))[: options.rows]
    test = trial.split.test.take(list(chosen))
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    print("\n".join(lines), flush=True)
    for row in _rows(trial, test, options.only.split(",") if options.only else []):
        lines.append(_line(row))
        print(lines[-1], flush=True)
    if options.out:
        stamp = f"{time.strftime('%Y-%m-%d')}: {len(test)} test images, small CNN of plans/chest-xray.toml"
        options.out.write_text("\n".join([stamp, "", *lines, ""]))


def _rows(trial: Trial, test: Samples, only: list[str]) -> Iterator[list[str]]:
    spec, hardened = trial.plan.models[0], trial.plan.defenses[1]
    models = (trial.base(spec), trial.defended(spec, hardened.chain))
    for plugin in SHELVES["attacks"].all().values():
        if only and plugin.name not in only:
            continue
        threat = _threat(plugin, trial)
        yield [f"`{plugin.name}`", _settings(plugin), threat.name, *_measured(plugin, models, test, threat)]


def _threat(plugin: Plugin, trial: Trial) -> Threat:
    norm = plugin.needs.norms[0] if plugin.needs else "linf"
    eps, unit = BUDGETS[norm]
    domain = trial.data.domain
    if plugin.needs and plugin.needs.mask:  # a sticker of 10 x 10 pixels' room, of any brightness
        mask = torch.zeros(1, 28, 28, dtype=torch.bool)
        mask[:, 2:14, 2:14] = True
        domain, eps = (*domain, MutableMask(mask=mask, text="only a corner may change")), 255.0
    budget = ball(norm, eps, trial.units[unit], unit)
    return Threat(family=norm, budget=budget, domain=domain, goal=AnyError())


def _settings(plugin: Plugin) -> str:
    return ", ".join(f"{name} = {value}" for name, value in SLOW.get(plugin.name, {}).items()) or "defaults"


def _measured(plugin: Plugin, models: tuple[Model, ...], test: Samples, threat: Threat) -> list[str]:
    cells, costs = [], []
    for model in models:
        try:
            done = _attacked(plugin, model, test, threat)
        except Incompatible as reason:
            return [str(reason), "", "", "", ""]
        right = int((~done.verdict.won).sum())
        limits = wilson(right, len(test))
        cells.append(f"{right / len(test):.0%} ({limits.low:.0%} to {limits.high:.0%})")
        costs.append(done)
    first = costs[0]
    won = first.verdict.won & first.proposal.attacked
    change = first.verdict.distances[threat.budget.norm][won]
    median = f"{float(change.median()):.3g} {threat.budget.unit}" if len(change) else ""
    rows = first.proposal.attacked.cpu()
    spent = [f"{float(passes[rows].mean()):.0f}" for passes in (first.proposal.forwards, first.proposal.backwards)]
    return [*cells, median, *spent]


def _attacked(plugin: Plugin, model: Model, test: Samples, threat: Threat) -> Attacked:
    attack = make_attack({"name": plugin.name, **SLOW.get(plugin.name, {})})
    return attack_rows(attack, model, test.x, test.y, threat, minimal="minimal" in plugin.traits)


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
