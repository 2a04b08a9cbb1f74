"""Models of a plan that are no networks: fitted here, kept by content, and seen by their scores."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from titer.assess.models import ModelSpec
from titer.core.errors import SpecError
from titer.core.model import Model
from titer.core.plugins import make_estimator, plugin
from titer.core.protocols import Fitted, TrainingData
from titer.core.randomness import generator
from titer.core.record import ClinicalData
from titer.core.registry import parse
from titer.training.weights import TrainingCost

_KEY_VERSION = 1


def check_estimator(spec: ModelSpec, data: ClinicalData) -> None:
    """Refuse data that estimators do not learn: anything but one class of several, of rows that are vectors."""
    part = next(iter(data.parts().values()))
    if data.output != "classes" or part.x.dim() != 2:
        raise SpecError(
            f"models.{spec.label}.estimator is not allowed with data of shape {tuple(part.x.shape)} and task "
            f"{data.output!r}: allowed are tables [N, features] of classes"
        )


def fitted(spec: ModelSpec, data: TrainingData, *, seed: int) -> Model:
    """Return the estimator of a plan's table, fitted on the training part, or as an earlier run kept it.

    Nothing of the cache is unpickled: what is kept is the estimator's own state, and only where its digest is the one
    noted beside it.
    """
    assert spec.estimator is not None
    key = _key(spec, data, seed)
    make = make_estimator(spec.estimator, f"models.{spec.label}.estimator")

    def fit(kept: bytes | None) -> Fitted:
        return make(data, rng=generator(seed), kept=kept)

    found, cost = _kept(data.cache, key, fit) or _fresh(data.cache, key, fit)
    return Model(
        name=spec.label,
        logits=found.logits,
        access="scores",
        output=data.output,
        provenance={
            "weights": found.digest,
            "model": spec.label,
            "pretrained": "no",
            "training": key,
            "build": json.dumps({"estimator": spec.estimator}, sort_keys=True),
            "costs": json.dumps([asdict(cost)]),
        },
    )


def _key(spec: ModelSpec, data: TrainingData, seed: int) -> str:
    """Return the sha256 of everything that the fit depends on."""
    assert spec.estimator is not None
    name, settings = parse(spec.estimator, "estimator")
    parts = {
        "version": _KEY_VERSION,
        "estimator": name,
        "settings": plugin("estimators", name).check(settings, name),
        "train": data.train.digest(),
        "validation": data.validation.digest(),
        "class_weights": data.recipe.class_weights,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fresh(cache: Path | None, key: str, fit: Callable[[bytes | None], Fitted]) -> tuple[Fitted, TrainingCost]:
    cpu, wall = time.process_time(), time.perf_counter()
    found = fit(None)
    cost = TrainingCost(epochs=1, cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall)
    if cache is not None and found.state is not None:
        note = {"sha256": hashlib.sha256(found.state).hexdigest(), "cost": asdict(cost)}
        _write(cache / f"{key}.model", found.state)
        _write(cache / f"{key}.json", json.dumps(note).encode())
    return found, cost


def _write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _kept(cache: Path | None, key: str, fit: Callable[[bytes | None], Fitted]) -> tuple[Fitted, TrainingCost] | None:
    """Return the model kept under `key`, or None; a damaged file counts as absent."""
    if cache is None:
        return None
    try:
        state, note = (cache / f"{key}.model").read_bytes(), _note(cache / f"{key}.json")
        if hashlib.sha256(state).hexdigest() != note["sha256"]:
            return None
        return fit(state), TrainingCost(**(note["cost"] | {"cached": True}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(path: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(path.read_text())
    return note
