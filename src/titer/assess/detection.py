"""Detectors of a plan: what they raise an alarm on, and what an attacker who knows them gets through.

Each detector alone, at its own threshold, and all together. Under every budget an attacker who does not know them;
under the largest budget of each family one who does, as a larger budget allows all that a smaller one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
import torch

from titer.assess.cells import Cell
from titer.assess.detection_bench import Attempt, Bench, Watcher, latency
from titer.assess.detection_stream import stream_parts
from titer.assess.plan import AttackPlan
from titer.assess.study_parts import Found, Part, Study
from titer.assess.study_plans import TOGETHER, DetectionPlan
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.plugins import plugin
from titer.core.record import Samples
from titer.core.registry import parse

VERSION = 1
_REPEATS = 41


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    table = trial.plan.detection
    assert table is not None
    bench = Bench(trial, source, table)
    everything = _shared(table) | {"detectors": bench.specs}
    yield Part(title="detectors, no attack", spec=everything | {"what": "clean"}, run=partial(_clean, bench))
    for cell in _cells(trial, source, table):
        assert cell.attack is not None
        name = f"{cell.attack.label}, {cell.threats[-1].name}"
        spec = everything | {"what": "plain", "cell": cell.id}
        yield Part(title=f"detectors, {name}", spec=spec, run=partial(_plain, bench, cell))
        for label in (*bench.specs, *([TOGETHER] if len(bench.specs) > 1 else [])):
            own = everything if label == TOGETHER else _shared(table) | {"detectors": {label: bench.specs[label]}}
            spec = own | {"what": "evading", "cell": cell.id, "label": label}
            yield Part(title=f"{name}, evading {label}", spec=spec, run=partial(_evading, bench, cell, label))
    yield from stream_parts(bench, _shared(table), next(_cells(trial, source, table)))


STUDY = Study(name="detection", table=lambda plan: plan.detection, parts=_parts)


def _shared(table: DetectionPlan) -> dict[str, Any]:
    """Return what every part depends on besides its detectors."""
    return {
        "version": VERSION,
        "rows": table.rows,
        "rate": table.false_positive_rate,
        "combination": table.combination,
        "together": table.together,
    }


def _cells(trial: Trial, source: Defended, table: DetectionPlan) -> Iterator[Cell]:
    """Yield what an attacker of the model alone would run: attack by attack, one family of threats each."""
    chosen = [one for one in trial.plan.attacks if table.attacks is None or one.label in table.attacks]
    for attack in chosen:
        for family in trial.plan.threats:
            yield _cell(trial, attack, trial.threats(family), source)


def _cell(trial: Trial, attack: AttackPlan, threats: tuple[Any, ...], source: Defended) -> Cell:
    return Cell(trial=trial, attack=attack, threats=threats, source=source, targets=(source,))


def _clean(bench: Bench) -> Found:
    """Score the validation part, which sets the thresholds, and the clean test rows."""
    able, rows = bench.able, bench.rows
    validation = bench.trial.split.validation.to(bench.trial.device)
    frames = [
        _frame(one, part, part.x, part=name)
        for one in able
        for name, part in (("validation", validation), ("test", rows))
    ]
    detectors = [{"label": label} | _described(bench, label) for label in bench.watchers]
    facts = {
        "rate": bench.table.false_positive_rate,
        "combination": bench.table.combination,
        "detectors": detectors,
        "validation_rows": len(validation),
        "test_rows": len(rows),
    }
    return Found(frame=pd.concat(frames, ignore_index=True), facts=facts)


def _described(bench: Bench, label: str) -> dict[str, Any]:
    """Return title, spec and cost of one watcher, or why there is none."""
    found = bench.watchers[label]
    if label == TOGETHER:
        said: dict[str, Any] = {"title": "All together", "of": bench.together}
    else:
        spec = bench.specs[label]
        said = {"title": plugin("detectors", spec).title, "spec": spec, "name": parse(spec, "detectors")[0]}
    if isinstance(found, Incompatible):
        return said | {"refused": str(found)}
    return said | {"latency": latency(bench.model, found, bench.rows.x[:1], _REPEATS)}


def _plain(bench: Bench, cell: Cell) -> Found:
    """Show every watcher what an attacker finds who does not know of any."""
    able = bench.able
    frames = [_attacked(one, bench, cell, found, adaptive=False) for found in bench.plain(cell) for one in able]
    spent = sum({one.attack_cpu_seconds for one in bench.plain(cell)})
    return Found(frame=pd.concat(frames, ignore_index=True), facts={"attack_cpu_seconds": spent})


def _evading(bench: Bench, cell: Cell, label: str) -> Found:
    """Let an attacker search who lowers the score of one watcher as well."""
    watcher = bench.watcher(label)
    found = bench.evading(cell, watcher)
    frame = _attacked(watcher, bench, cell, found, adaptive=True)
    return Found(frame=frame, facts={"attack_cpu_seconds": found.attack_cpu_seconds})


def _attacked(watcher: Watcher, bench: Bench, cell: Cell, found: Attempt, *, adaptive: bool) -> pd.DataFrame:
    assert cell.attack is not None
    return _frame(
        watcher,
        bench.rows,
        found.x,
        attack=cell.attack.label,
        threat=found.threat.name,
        threat_family=found.threat.family,
        eps=float(found.threat.budget.eps),
        adaptive=adaptive,
        at_stake=found.at_stake.cpu().numpy(),
        won=found.won.cpu().numpy(),
    )


def _frame(watcher: Watcher, rows: Samples, x: torch.Tensor, **columns: Any) -> pd.DataFrame:
    """Return one row for each sample with its score; clean rows have no attack and nothing at stake."""
    fixed: dict[str, Any] = {
        "part": "test", "detector": watcher.label, "attack": "none", "threat": "none", "threat_family": "none",
        "eps": 0.0, "adaptive": False, "at_stake": False, "won": False,
    }  # fmt: skip
    score = watcher.score(x)
    return pd.DataFrame(
        {
            **{name: columns.get(name, value) for name, value in fixed.items()},
            "sample_id": list(rows.ids),
            "patient_id": list(rows.patients),
            "score": score.double().cpu().numpy(),
            "threshold": watcher.threshold,
            "raised": (~(score <= watcher.threshold)).cpu().numpy(),
        }
    )
