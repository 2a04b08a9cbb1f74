"""Part 1's figures, measured in one run on the same weights; prints tables, asserts nothing.

    python benchmarks/assess.py --run runs/chest-xray      (figures of a finished chest-xray run)
    python benchmarks/assess.py                            (speed against peers, harness overhead)

CPU seconds of one thread; compare ratios, never absolute times. Results with date and machine: benchmarks/results/.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from titer.assess.judge import predict, propose, reached, verdict
from titer.assess.manifest import hardware
from titer.assess.plan import load_plan
from titer.assess.trial import Trial, open_trial
from titer.core.model import Model
from titer.core.places import weights_cache
from titer.core.plugins import make_attack
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Threat

ROWS, BATCH, ROUNDS = 500, 250, 5
PGD = {"name": "pgd", "steps": 40, "step": 0.1}


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run of plans/chest-xray.toml")
    parser.add_argument("--plan", type=Path, default=Path("plans/chest-xray.toml"))
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, {json.dumps(hardware('cpu'))}, torch {torch.__version__}, one thread")
    if options.run:
        print(defence_figures(options.run))
    torch.set_num_threads(1)
    trial = open_trial(load_plan(options.plan), 0, cache=weights_cache())
    model = trial.base(trial.plan.models[0])
    threat = trial.threats(trial.plan.threats[0])[-1]
    test = trial.split.test.take(list(np.random.default_rng(0).permutation(len(trial.split.test))[:ROWS]))
    print(peers(trial, model, threat, test))
    print(overhead(model, threat, test))


def defence_figures(run: Path) -> str:
    """Return adversarial training's and the hybrid's figures of a finished run, mean over its trials."""
    metrics = pd.read_parquet(run / "metrics.parquet")
    overall = metrics[(metrics["group"] == "all") & (metrics["source"] == metrics["defense"])]

    def mean(defense: str, attack: str, threat: str, column: str) -> float:
        rows = overall[(overall["defense"] == defense) & (overall["attack"] == attack) & (overall["threat"] == threat)]
        return float(rows[column].mean())

    threat, trained = "linf 8/255", "adversarial training"
    before, after = (mean(d, "pgd", threat, "attack_success_rate") for d in ("none", trained))
    clean_before, clean_after = (mean(d, "none", "none", "accuracy") for d in ("none", trained))
    passive, adaptive = fooled_yet_right(pd.read_parquet(run / "outcomes.parquet"), threat)
    kept = mean("hybrid", "none", "none", "accuracy") / clean_before
    return table(
        [
            ("figure", "value", "asked", "published"),
            ("PGD-40 success at 8/255, no defence", f"{before:.1%}", "", ""),
            ("PGD-40 success at 8/255, adversarial training", f"{after:.1%}", "", ""),
            ("cut in attack success", f"{1 - after / before:.1%}", ">= 70 %", "58 %"),
            ("loss of clean accuracy, points", f"{100 * (clean_before - clean_after):.2f}", "<= 2", "12"),
            ("hybrid right on inputs that fool no defence (not adapting)", f"{passive:.1%}", ">= 85 %", "72 %"),
            ("the same patients, attacker adapting", f"{adaptive:.1%}", "", ""),
            ("hybrid: clean accuracy kept", f"{kept:.1%}", ">= 97 %", "89 %"),
        ]
    )


def fooled_yet_right(outcomes: pd.DataFrame, threat: str) -> tuple[float, float]:
    """Return, over rows that PGD fools on no defence, the hybrid's share right: passive and adaptive attacker."""
    rows = outcomes[(outcomes["attack"] == "pgd") & (outcomes["threat"] == threat)]
    keys = ["trial", "sample_id"]
    base = rows[(rows["defense"] == "none") & (rows["clean_prediction"] == rows["label"]) & rows["won"]]
    fooled = pd.MultiIndex.from_frame(base[keys])
    shares = []
    for source in ("none", "hybrid"):
        hybrid = rows[(rows["defense"] == "hybrid") & (rows["source"] == source)].set_index(keys)
        there = hybrid.loc[hybrid.index.isin(fooled)]
        right = there["adversarial_prediction"] == there["label"]
        shares.append(float(right.groupby("trial").mean().mean()))
    return shares[0], shares[1]


def peers(trial: Trial, model: Model, threat: Threat, test: Samples) -> str:
    """Return PGD-40's robust accuracy and CPU seconds; same weights, batches, steps, one thread.

    A peer's user has a network whose weights ask for gradients; the last two rows freeze them by hand, as Titer does.
    """
    usual, frozen = network(trial), network(trial, frozen=True)
    contestants: dict[str, Callable[[], Tensor]] = {
        "titer": lambda: titer_pgd(model, threat, test),
        "foolbox": lambda: foolbox_pgd(usual, threat, test),
        "torchattacks": lambda: torchattacks_pgd(usual, threat, test),
        "foolbox, weights frozen by hand": lambda: foolbox_pgd(frozen, threat, test),
        "torchattacks, weights frozen by hand": lambda: torchattacks_pgd(frozen, threat, test),
    }
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    robust: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            began = time.process_time()
            x_adv = run()
            spent[name].append(time.process_time() - began)
            assert float((x_adv - test.x).abs().max()) <= threat.budget.eps * 1.0001
            robust[name] = robust_accuracy(model, x_adv, test)
    best = {name: min(seconds) for name, seconds in spent.items()}
    rows = [("PGD-40, 8/255 Linf, 500 images, batch 250", "robust accuracy", "CPU s (min of 5)", "Titer / it")]
    rows += [(name, f"{robust[name]:.3f}", f"{best[name]:.2f}", f"{best['titer'] / best[name]:.2f}") for name in best]
    return table(rows)


def robust_accuracy(model: Model, x_adv: Tensor, test: Samples) -> float:
    """Return the share of rows that are right when clean and when attacked."""
    rng = generator(0)
    right = (predict(model, test.x, rng=rng).classes == test.y) & (predict(model, x_adv, rng=rng).classes == test.y)
    return float(right.float().mean())


def titer_pgd(model: Model, threat: Threat, test: Samples) -> Tensor:
    """Attack all rows, as the peers do."""
    return torch.cat(
        [
            make_attack(PGD)(model, x, y, threat, rng=generator(0))
            for x, y in zip(test.x.split(BATCH), test.y.split(BATCH), strict=True)
        ]
    )


def network(trial: Trial, *, frozen: bool = False) -> torch.nn.Module:
    """Return the trained network, which takes [0, 1] inputs."""
    net = trial.base(trial.plan.models[0]).net
    assert net is not None
    return copy.deepcopy(net).eval().requires_grad_(not frozen)


def foolbox_pgd(net: torch.nn.Module, threat: Threat, test: Samples) -> Tensor:
    """Run foolbox's PGD with the same steps, step and random start."""
    import foolbox

    bounded = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=40, rel_stepsize=0.1, random_start=True)
    parts = []
    for x, y in zip(test.x.split(BATCH), test.y.split(BATCH), strict=True):
        _, clipped, _ = attack(bounded, x / 255, y, epsilons=[threat.budget.eps / 255])
        parts.append(clipped[0] * 255)
    return torch.cat(parts)


def torchattacks_pgd(net: torch.nn.Module, threat: Threat, test: Samples) -> Tensor:
    """Run torchattacks' PGD with the same steps, step and random start."""
    import torchattacks

    eps = threat.budget.eps / 255
    attack = torchattacks.PGD(net, eps=eps, alpha=0.1 * eps, steps=40, random_start=True)
    parts = [attack(x / 255, y) * 255 for x, y in zip(test.x.split(BATCH), test.y.split(BATCH), strict=True)]
    return torch.cat(parts)


def overhead(model: Model, threat: Threat, test: Samples) -> str:
    """Return what the harness adds to each attack's own CPU time: metering, projection, judging, distances."""
    rows = [("harness overhead, 500 images", "attack alone, CPU s", "with the harness", "added")]
    wrong = reached(threat, predict(model, test.x, rng=generator(0)), test.y)
    for spec in ("fgsm", "bim", PGD, "deepfool"):
        alone, whole = [], []
        name = spec if isinstance(spec, str) else str(spec["name"])
        for _ in range(ROUNDS):
            began = time.process_time()
            make_attack(spec)(model, test.x[~wrong], test.y[~wrong], threat, rng=generator(0))
            alone.append(time.process_time() - began)
            began = time.process_time()
            judged(model, spec, threat, test)
            whole.append(time.process_time() - began)
        added = min(whole) / min(alone) - 1
        rows.append((name, f"{min(alone):.2f}", f"{min(whole):.2f}", f"{added:.1%}"))
    return table(rows)


def judged(model: Model, spec: str | dict[str, object], threat: Threat, test: Samples) -> None:
    """Run an attack as an assessment does: clean predictions are made once per model and not counted here."""
    clean = CLEAN.setdefault(id(model), predict(model, test.x, rng=generator(0)))
    minimal = spec == "deepfool"
    won = reached(threat, clean, test.y)
    found = propose(
        make_attack(spec), model, test.x, test.y, threat, won, minimal=minimal, rng=generator(0)
    )  # fmt: skip
    verdict(model, test.x, test.y, clean, found, threat, minimal=minimal, rng=generator(1))


CLEAN: dict[int, object] = {}


def table(rows: list[tuple[str, ...]]) -> str:
    """Return rows as a Markdown table, the first one its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
