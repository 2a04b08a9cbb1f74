"""Hardening: one trial of a plan's defences, handed over as weights with a model card and the evidence."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from titer.assess.cells import atomic_write, write_json
from titer.assess.grid import lineup
from titer.assess.models import plain_network
from titer.assess.plan import Plan
from titer.assess.pool import Listener
from titer.assess.run import assess, manifest_of, quiet
from titer.assess.trial import Defended, open_trial
from titer.core.errors import SpecError, unknown
from titer.core.places import weights_cache
from titer.training.weights import save


def hardening_plan(plan: Plan, defense: str | None) -> Plan:
    """Return the plan cut down to one trial and to the undefended model with one defence, or with all."""
    labels = [one.name for one in plan.defenses if one.chain]
    if not labels:
        raise SpecError(f"plan {plan.name!r} has no [[defenses]]: there is nothing to harden with")
    if defense is not None and defense not in labels:
        raise unknown("--defense", defense, labels)
    kept = tuple(one for one in plan.defenses if not one.chain or defense in (None, one.name))
    return replace(plan, trials=1, defenses=kept)


def harden(
    plan: Plan, out: Path, *, device: str = "cpu", workers: int | None = None, listener: Listener = quiet
) -> list[Path]:
    """Train and assess each defence once; return the model cards.

    Writes, for each model and defence, `<model>--<defence>.safetensors`, `.md` (the card) and `.json` (what it cost);
    `evidence/` is the run folder behind the card's numbers.
    """
    evidence = assess(plan, out / "evidence", device=device, workers=workers, listener=listener)
    trial = open_trial(plan, 0, cache=weights_cache(), device=device)
    cards = []
    for index in range(len(plan.models)):
        everyone = lineup(trial, index)
        cards += [_hand_over(one, out, evidence) for one in everyone[1:]]
    return cards


def _hand_over(one: Defended, out: Path, evidence: Path) -> Path:
    if one.model is None or one.model.net is None:
        raise SpecError(f"defenses.{one.label} gives no weights for {one.model_label}: {one.reason or 'no network'}")
    stem = "--".join(re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") for label in (one.model_label, one.label))
    provenance = dict(one.model.provenance)
    save(out / f"{stem}.safetensors", plain_network(one.model.net).state_dict(), {"titer": json.dumps(provenance)})
    facts = _facts(one, evidence)
    write_json(out / f"{stem}.json", facts)
    card = out / f"{stem}.md"
    atomic_write(card, _card(one, stem, facts, manifest_of(evidence)).encode())
    return card


def _facts(one: Defended, evidence: Path) -> dict[str, Any]:
    """Return clean and worst-case accuracy before and after, and the cost of training before and after."""
    metrics = pd.read_parquet(evidence / "metrics.parquet")
    rows = metrics[(metrics["group"] == "all") & (metrics["model"] == one.model_label)]
    rows = rows[(rows["source"] == rows["defense"]) & rows["attack"].isin(["none", "worst-case"])]
    training = json.loads((evidence / "costs.json").read_text())["training"]
    spent = {c["defense"]: c["cpu_seconds"] for c in training if c["model"] == one.model_label}
    accuracy = [
        {"threat": threat, **{str(d): float(v) for d, v in group.set_index("defense")["accuracy"].items()}}
        for threat, group in rows[rows["defense"].isin(["none", one.label])].groupby("threat", sort=False)
    ]
    base, own = spent.get("none"), spent.get(one.label)
    return {
        "format_version": 1,
        "model": one.model_label,
        "defense": one.label,
        "n_test": int(rows["n"].max()),
        "accuracy": accuracy,
        "training_cpu_seconds": {"none": base, one.label: own},
        "training_ratio": own / base if base and own else None,
    }


def _card(one: Defended, stem: str, facts: dict[str, Any], manifest: dict[str, Any]) -> str:
    """Return the model card, Markdown (Mitchell et al. 2019, arXiv:1810.03993)."""
    assert one.model is not None
    weights, defenses = (one.model.provenance.get(key, "") for key in ("weights", "defenses"))
    lines = [
        f"# {one.model_label}, {one.label}",
        "",
        f"Weights: `{stem}.safetensors`, sha256 of the tensors `{weights}`.",
        f"Defence: `{defenses}`. Made by Titer {manifest['titer_version']}.",
        "",
        "## Data",
        f"{manifest['data']['title']}; source: {manifest['data']['source']}; licence: {manifest['data']['licence']}.",
        f"Training {manifest['data']['n_train']}, validation {manifest['data']['n_validation']}, test "
        f"{manifest['data']['n_test']} samples; classes: {', '.join(manifest['data']['classes'])}.",
        "",
        "## Accuracy on the test part",
        "Worst case over the plan's attacks, the attacker knowing the defence. One training: `titer assess` gives the",
        "spread over several, with intervals and doubts; the run behind this table is in `evidence/`.",
        "",
        f"| input | no defence | {one.label} |",
        "|---|---|---|",
    ]
    for row in facts["accuracy"]:
        name = "clean" if row["threat"] == "none" else row["threat"]
        lines.append(f"| {name} | {100 * row.get('none', float('nan')):.1f} % | {100 * row[one.label]:.1f} % |")
    ratio = facts["training_ratio"]
    lines += ["", "## Cost of hardening", _cost_line(facts["training_cpu_seconds"], one.label, ratio), ""]
    lines += ["## Limits", "Measured against the attacks and budgets above only. Not a certificate.", ""]
    return "\n".join(lines)


def _cost_line(spent: dict[str, float | None], label: str, ratio: float | None) -> str:
    if ratio is None:
        return "Not known: the undefended model was not trained here."
    own, base = spent[label], spent["none"]
    return f"Training took {own:.1f} CPU seconds instead of {base:.1f} ({ratio:.1f} times), base included."
