"""What ran: versions, commit, seeds, digests, hardware. A report can be rebuilt from it and the tables alone."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from titer import __version__
from titer.assess.cells import FORMAT_VERSION
from titer.assess.plan import Plan
from titer.assess.trial import Trial, trial_seed
from titer.core.record import ClinicalData
from titer.core.registry import SHELVES, parse

_PACKAGES = (
    "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "statsmodels", "lightning-fabric", "monai",
    "pillow", "onnxruntime", "safetensors", "pydantic", "captum",
)  # fmt: skip


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def run_id(plan: Plan, data_digest: str) -> str:
    """Return the first 12 hex digits of the plan's and the data's digest."""
    return hashlib.sha256(f"{plan.digest()}{data_digest}".encode()).hexdigest()[:12]


def describe(plan: Plan, trial: Trial, device: str) -> dict[str, Any]:
    """Return the manifest of a run that begins now; `trial` is its first."""
    return {
        "format_version": FORMAT_VERSION,
        "titer_version": __version__,
        "commit": _commit(),
        "name": plan.name,
        "title": plan.title,
        "run": run_id(plan, trial.data_digest),
        "started": now(),
        "finished": None,
        "wall_seconds": None,
        "python": platform.python_version(),
        "packages": _versions(),
        "hardware": hardware(device),
        "seed": plan.seed,
        "trials": plan.trials,
        "trial_seeds": [trial_seed(plan, number) for number in range(plan.trials)],
        "plan_sha256": plan.digest(),
        "data": _data(trial.data, trial),
        "models": [{"label": one.label, "spec": _model_spec(one)} for one in plan.models],
        "defenses": [_defense(one.name, one.chain) for one in plan.defenses],
        "attacks": [_attack(one.label, one.spec, minimal=one.minimal) for one in plan.attacks],
        "transfer": plan.transfer,
        "precision": plan.precision,
        "surrogates": [one.model_dump(exclude_none=True) for one in plan.surrogates],
        "threats": [_threat(threat) for family in plan.threats for threat in trial.threats(family)],
        "weights": [],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Return the commit of Titer's own source, where it runs from a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's git
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware(device: str) -> dict[str, Any]:
    """Return processor, cores, memory, device and system of this machine."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": device,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def _data(data: ClinicalData, trial: Trial) -> dict[str, Any]:
    split = trial.split
    return {
        "name": data.name,
        "title": data.title,
        "source": data.source,
        "licence": data.licence,
        "sha256": trial.data_digest,
        "kind": data.kind,
        "classes": list(data.classes),
        "positive": data.positive,
        "output": data.output,
        "tolerance": data.tolerance,
        "n_train": len(split.train),
        "n_validation": len(split.validation),
        "n_test": len(split.test),
        "n_patients": len({patient for part in data.parts().values() for patient in part.patients}),
        "groups": list(split.test.groups),
        "test_fixed": data.pool is None,
    }


def _model_spec(one: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(one).items() if value is not None}


def _defense(label: str, chain: Sequence[Any]) -> dict[str, Any]:
    names = [parse(spec, "defenses")[0] for spec in chain]
    plugins = [SHELVES["defenses"].get(name, "defenses") for name in names]
    return {
        "label": label,
        "title": ", then ".join(one.title for one in plugins) or "No defence",
        "spec": list(chain),
        "papers": [one.paper for one in plugins],
    }


def _attack(label: str, spec: Mapping[str, Any], *, minimal: bool) -> dict[str, Any]:
    plugin = SHELVES["attacks"].get(spec["name"], "attacks")
    return {
        "label": label,
        "spec": dict(spec),
        "title": plugin.title,
        "paper": plugin.paper,
        "threats": list(plugin.threat_ids),
        "minimal": minimal,
        "access": None if plugin.needs is None else plugin.needs.access,
    }


def _threat(threat: Any) -> dict[str, Any]:
    return {
        "label": threat.name,
        "family": threat.family,
        "norm": threat.budget.norm,
        "eps": threat.budget.eps,
        "unit": threat.budget.unit,
        "domain": [rule.describe() for rule in threat.domain],
        "goal": threat.goal.name,
        "access": threat.access,
    }
