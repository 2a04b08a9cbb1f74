"""Cells: the units of work that are done once, kept, and found again after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titer.assess.plan import AttackPlan, spec_text
from titer.assess.trial import Defended, Trial
from titer.core.threat import Threat

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of one attack on one model: under one threat, or a whole family for a least-perturbation attack.

    `attack` is None for the clean rows. `targets` are judged on the proposals; the first one is the source itself,
    unless that is a surrogate, which is never judged. `rehearsed` are the threats under which a surrogate is attacked,
    where they differ from those that the targets are judged under.
    """

    trial: Trial
    attack: AttackPlan | None
    threats: tuple[Threat, ...]
    source: Defended
    targets: tuple[Defended, ...]
    rehearsed: tuple[Threat, ...] = ()

    def rehearsal(self) -> Cell:
        """Return the cell as the attacker runs it: every find is shown to other models, even where that is one."""
        if not self.rehearsed:
            return self
        return replace(self, threats=self.rehearsed, rehearsed=(), targets=(self.source, *self.targets))

    @property
    def id(self) -> str:
        """Return the sha256 of every spec, the data digest and the weights digests."""
        parts: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "data": self.trial.data_digest,
            "seed": self.trial.seed,
            "trial": self.trial.number,
            "device": self.trial.device,
            "attack": None if self.attack is None else [self.attack.label, self.attack.spec],
            "threats": [_threat_text(threat) for threat in self.threats],
            "source": [self.source.model_label, self.source.label, self.source.digest],
            "targets": [[one.label, one.digest] for one in self.targets],
        }
        if self.trial.plan.precision != "float32":
            parts["precision"] = self.trial.plan.precision
        if self.trial.plan.test_rows is not None:
            parts["test_rows"] = self.trial.plan.test_rows
        if self.rehearsed:
            parts["rehearsed"] = [_threat_text(threat) for threat in self.rehearsed]
        return hashlib.sha256(spec_text(parts).encode()).hexdigest()


def _threat_text(threat: Threat) -> str:
    scale = hashlib.sha256(np.ascontiguousarray(threat.budget.scale.cpu().numpy()).tobytes()).hexdigest()
    rules = [rule.describe() for rule in threat.domain]
    return spec_text([threat.name, threat.goal.name, threat.access, threat.budget.norm, scale, rules])


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def sweep(out: Path) -> None:
    """Delete what a killed process left half-written in a run folder; only for who holds its lock."""
    for path in out.rglob(".*.part"):
        path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, keys in order, NaN refused."""
    atomic_write(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a Parquet table atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    frame.to_parquet(partial, index=False, compression="zstd")
    partial.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStore:
    """Finished cells in a run folder. The note is written last: it says that the cell is done, or why it cannot be."""

    folder: Path

    def note(self, cell: str) -> dict[str, Any] | None:
        """Return what is noted of a finished cell, or None."""
        path = self.folder / "cells" / f"{cell}.json"
        try:
            note: dict[str, Any] = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return note if note.get("skipped") or note.get("checks") is not None or self._table(cell).is_file() else None

    def save(
        self,
        cell: str,
        note: Mapping[str, Any],
        frame: pd.DataFrame | None = None,
        examples: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Keep a finished cell."""
        if examples:
            self._save_examples(cell, examples)
        if frame is not None:
            write_parquet(self._table(cell), frame)
        write_json(self.folder / "cells" / f"{cell}.json", dict(note))

    def tables(self, cells: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield the outcomes of the cells that have any, in this order."""
        for cell in cells:
            if self._table(cell).is_file():
                yield pd.read_parquet(self._table(cell))

    def _table(self, cell: str) -> Path:
        return self.folder / "cells" / f"{cell}.parquet"

    def _save_examples(self, cell: str, examples: Mapping[str, np.ndarray]) -> None:
        path = self.folder / "examples" / f"{cell}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{cell}.{os.getpid()}.part")
        with partial.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **examples)
        partial.replace(path)
