"""Runs the studies of a plan beside its attacks, every finished part kept, and writes their tables."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from titer.assess import certification, detection, explanation, transferability
from titer.assess.cells import FORMAT_VERSION, CellStore, write_json, write_parquet
from titer.assess.plan import Plan, spec_text
from titer.assess.study_parts import Part, Study
from titer.assess.trial import Defended, Trial
from titer.core.errors import FAILED, Incompatible

STUDIES: tuple[Study, ...] = (certification.STUDY, detection.STUDY, explanation.STUDY, transferability.STUDY)


def store_of(out: Path, study: Study) -> CellStore:
    """Return where a run folder keeps the parts of a study."""
    return CellStore(folder=out / study.name)


def run_studies(trial: Trial, source: Defended, out: Path, done: Callable[[str], None]) -> dict[str, list[str]]:
    """Do every part of one defended model that is not done yet; return the ids of each study's parts, in order."""
    found: dict[str, list[str]] = {}
    for study in STUDIES:
        table = study.table(trial.plan)
        if table is None or not table.studies(source.label):
            continue
        store, ids = store_of(out, study), found.setdefault(study.name, [])
        if source.model is None:
            ids.append(_skip(store, trial, source, source.reason))
            continue
        for part in study.parts(trial, source):
            ids.append(_id(trial, source, part.spec))
            if not _settled(store.note(ids[-1])):
                _run(part, ids[-1], store, trial, source)
            done(part.title)
    return found


def _run(part: Part, key: str, store: CellStore, trial: Trial, source: Defended) -> None:
    began = time.process_time()
    note = _labels(trial, source) | {"spec": dict(part.spec), "title": part.title}
    try:
        found = part.run()
    except Incompatible as reason:
        store.save(key, note | {"skipped": str(reason)})
        return
    frame = found.frame.assign(trial=trial.number, model=source.model_label, defense=source.label)
    note |= {"cpu_seconds": time.process_time() - began, "facts": dict(found.facts)}
    store.save(key, note, frame, found.arrays)


def _skip(store: CellStore, trial: Trial, source: Defended, reason: str) -> str:
    key = _id(trial, source, {"skipped": reason})
    store.save(key, _labels(trial, source) | {"spec": {}, "title": source.label, "skipped": reason})
    return key


def _labels(trial: Trial, source: Defended) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "trial": trial.number,
        "model": source.model_label,
        "defense": source.label,
    }


def _id(trial: Trial, source: Defended, spec: Mapping[str, Any]) -> str:
    """Return the sha256 of everything that a part depends on."""
    parts = {
        "version": FORMAT_VERSION,
        "data": trial.data_digest,
        "seed": trial.seed,
        "trial": trial.number,
        "device": trial.device,
        "precision": trial.plan.precision,
        "test_rows": trial.plan.test_rows,
        "source": [source.model_label, source.label, source.digest],
        "spec": dict(spec),
    }
    return hashlib.sha256(spec_text(parts).encode()).hexdigest()


def _settled(note: Mapping[str, Any] | None) -> bool:
    return note is not None and not str(note.get("skipped", "")).startswith(FAILED)


def write_studies(plan: Plan, out: Path, ids: Mapping[str, Sequence[str]]) -> None:
    """Write each study's table and its notes; those of a study that the plan has no longer are deleted."""
    for study in STUDIES:
        table, notes = out / f"{study.name}.parquet", out / f"{study.name}.json"
        if study.table(plan) is None:
            table.unlink(missing_ok=True)
            notes.unlink(missing_ok=True)
            continue
        store, keys = store_of(out, study), ids.get(study.name, [])
        frames = list(store.tables(keys))
        table.unlink(missing_ok=True)
        if frames:
            write_parquet(table, pd.concat(frames, ignore_index=True))
        kept = [dict(note) | {"part": key} for key in keys if (note := store.note(key)) is not None]
        write_json(notes, {"format_version": FORMAT_VERSION, "parts": kept})
        _forget_arrays(out / study.name, frozenset(keys))


def _forget_arrays(folder: Path, keys: frozenset[str]) -> None:
    for path in (folder / "examples").glob("*.npz"):
        if path.stem not in keys:
            path.unlink()
