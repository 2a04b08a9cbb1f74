"""Write a simulated run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.report.simulate import Scene, count_metrics, simulate_outcomes
from tests.report.simulate_examples import write_examples
from tests.report.simulate_files import checks, costs, manifest, skipped, statistics
from tests.report.simulate_newer import with_newer_columns
from titer.stats import tables
from titer.stats.protocol import analyse


def write_run(folder: Path, scene: Scene, **changes: Any) -> Path:
    """Write a whole run folder; `changes` replace keys of the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = with_newer_columns(simulate_outcomes(scene), scene) if scene.newer else simulate_outcomes(scene)
    metrics = (
        tables.metrics(outcomes, positive=scene.positive, classes=len(scene.classes), findings=scene.output == "labels")
        if scene.newer
        else (count_metrics(outcomes, scene))
    )
    found = analyse(outcomes, metrics) if scene.newer else statistics(scene, metrics)
    outcomes.to_parquet(folder / "outcomes.parquet")
    metrics.to_parquet(folder / "metrics.parquet")
    (folder / "plan.toml").write_text(f'name = "{scene.name}"\ntrials = {scene.trials}\n')
    for name, content in (
        ("manifest", manifest(scene) | changes),
        ("statistics", found),
        ("sanity", {"checks": checks(scene)}),
        ("costs", costs(scene)),
        ("skipped", {"cells": skipped(scene)}),
    ):
        (folder / f"{name}.json").write_text(json.dumps({"format_version": 1} | content))
    if scene.output == "classes":
        write_examples(folder / "examples", scene, outcomes)
    return folder
