"""Gathers finished cells into the run folder's tables, in the plan's order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from titer.assess.agreement import Kind, compare_outcomes
from titer.assess.cells import FORMAT_VERSION, CellStore, write_json, write_parquet
from titer.assess.contradictions import certificate_checks
from titer.assess.plan import AttackPlan, Plan
from titer.assess.sanity import ENSEMBLES
from titer.core.errors import ContractError, SpecError
from titer.core.plugins import plugin
from titer.core.record import ClinicalData

_ENSEMBLE_EFFORT = 4


def write(plan: Plan, out: Path, cells: Sequence[str], manifest: dict[str, Any], data: ClinicalData) -> None:
    """Write outcomes, metrics, statistics, doubts, costs, skipped cells, and last the manifest."""
    from titer.stats.protocol import analyse
    from titer.stats.tables import metrics

    store = CellStore(folder=out)
    notes = [store.note(cell) for cell in cells]
    if any(note is None for note in notes):
        raise ContractError(f"{notes.count(None)} finished cells are missing from {out / 'cells'}")
    kept = [note for note in notes if note is not None]
    _refuse_empty(kept)
    outcomes = outcomes_table(store, cells, str(manifest["run"]))
    # Of findings, values and masks the table says right or wrong: two values.
    classes = len(data.classes) if data.output == "classes" else 2
    measured = metrics(outcomes, positive=data.positive, classes=classes, findings=data.output == "labels")
    write_parquet(out / "outcomes.parquet", outcomes)
    write_parquet(out / "metrics.parquet", measured)
    write_json(out / "statistics.json", analyse(outcomes, measured, seed=plan.seed))
    checks = _checks(plan, outcomes, kept) + certificate_checks(out, outcomes)
    write_json(out / "sanity.json", {"format_version": FORMAT_VERSION, "checks": checks})
    write_json(out / "costs.json", _costs(kept))
    write_json(out / "skipped.json", {"format_version": FORMAT_VERSION, "cells": _skipped(kept)})
    surrogates = [note["surrogate"] for note in kept if "surrogate" in note]
    write_json(out / "surrogates.json", {"format_version": FORMAT_VERSION, "surrogates": surrogates})
    _forget_examples(out, frozenset(cells))
    write_json(out / "manifest.json", manifest | {"weights": _weights(kept)})


def _forget_examples(out: Path, cells: frozenset[str]) -> None:
    """Delete the examples of cells that an earlier version of the plan had: the report shows all that are there."""
    for path in (out / "examples").glob("*.npz"):
        if path.stem not in cells:
            path.unlink()


def _refuse_empty(notes: Sequence[dict[str, Any]]) -> None:
    """Raise SpecError where every model failed: there is nothing to tell but why."""
    reasons = [note.get("skipped") for note in notes if "attack" in note]
    if reasons and all(reasons):
        raise SpecError(f"no model of the plan could be assessed: {reasons[0]}")


def outcomes_table(store: CellStore, cells: Sequence[str], run: str) -> pd.DataFrame:
    """Return all outcomes in the order of `cells`."""
    tables = list(store.tables(cells))
    if not tables:
        raise ContractError("no cell has outcomes: every model was skipped")
    outcomes = pd.concat(tables, ignore_index=True)
    outcomes.insert(0, "run", run)
    return outcomes


def _checks(plan: Plan, outcomes: pd.DataFrame, notes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    probes = [check for note in notes for check in note.get("checks") or []]
    confirmations = [note["confirmed"] for note in notes if note.get("confirmed")]
    return probes + compare_outcomes(outcomes, kinds(plan)) + confirmations


def kinds(plan: Plan) -> dict[str, Kind]:
    """Return what is known of each attack of a plan, by its label."""
    return {one.label: _kind(one) for one in plan.attacks}


def _kind(one: AttackPlan) -> Kind:
    found = plugin("attacks", one.spec)
    steps, restarts = one.spec.get("steps", 1), one.spec.get("restarts", 1)
    return Kind(
        single_step=one.single_step,
        minimal=one.minimal,
        joint="joint" in found.traits,
        access="gradient" if found.needs is None or one.spec["name"] in ENSEMBLES else found.needs.access,
        effort=steps * restarts * (_ENSEMBLE_EFFORT if one.spec["name"] in ENSEMBLES else 1),
    )


def _costs(notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    clean = [note for note in notes if note.get("attack") == "none" and "skipped" not in note]
    return {
        "format_version": FORMAT_VERSION,
        "training": [_labels(note) | _total(note["training"]) for note in clean if note["training"]],
        "attacks": [
            {key: note[key] for key in ("trial", "model", "source", "attack", "threat", "cpu_seconds", "rows")}
            | {"attack_cpu_seconds": note["attack_cpu_seconds"]}
            for note in notes
            if "attack_cpu_seconds" in note
        ],
        "inference": [_labels(note) | {"cpu_seconds_per_sample": note["inference_cpu_seconds"]} for note in clean],
    }


def _labels(note: dict[str, Any]) -> dict[str, Any]:
    return {"trial": note["trial"], "model": note["model"], "defense": note["source"]}


def _total(trainings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a model cost from the first weights on: its base, and every defence that trained."""
    return {
        "cpu_seconds": sum(one["cpu_seconds"] for one in trainings),
        "wall_seconds": sum(one["wall_seconds"] for one in trainings),
        "epochs": sum(one["epochs"] for one in trainings),
        "includes_base": True,
    }


def _skipped(notes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("trial", "model", "source", "attack", "threat")
    return [{k: note[k] for k in keys} | {"reason": note["skipped"]} for note in notes if "skipped" in note]


def _weights(notes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_labels(note) | {"sha256": note["weights"]} for note in notes if note.get("attack") == "none"]
