"""Read a run folder (format version 1) and refuse, in one line, what is missing, damaged or too new."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from titer.core.errors import SpecError
from titer.report.examples import Example, read_example

FORMAT_VERSION = 1
ANY_ERROR = "any-error"
STUDIES = ("certification", "detection", "explanation", "transfer")

_OUTCOME_COLUMNS = [
    "run", "cell", "trial", "model", "defense", "source", "attack", "threat", "threat_family", "norm", "eps", "unit",
    "access", "sample_id", "patient_id", "label", "clean_prediction", "adversarial_prediction", "won", "put_back",
    "distance_linf", "distance_l2", "distance_l1", "forwards", "backwards",
]  # fmt: skip
_METRIC_COLUMNS = [
    "model", "defense", "source", "attack", "threat", "trial", "group", "value", "threat_family", "norm", "eps", "unit",
    "access", "n", "n_positive", "accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr",
    "ece", "attack_success_rate", "put_back_share", "median_distance", "mean_forwards", "mean_backwards",
]  # fmt: skip
# columns that older runs lack, and what their rows mean without them
_NEWER_OUTCOMES = {"goal": ANY_ERROR, "eligible": True, "clean_error": math.nan, "adversarial_error": math.nan}
_NEWER_METRICS = {"goal": ANY_ERROR, "clean_error": math.nan, "adversarial_error": math.nan, "median_queries": math.nan}
_NAMES = [
    "run", "cell", "model", "defense", "source", "attack", "threat", "threat_family", "norm", "unit", "access",
    "sample_id", "patient_id", "goal",
]  # fmt: skip
_KEYS: dict[str, dict[str, type]] = {
    "manifest.json": dict.fromkeys(("data",), dict)
    | dict.fromkeys(("models", "defenses", "attacks", "threats"), list)
    | {"trials": int},
    "statistics.json": {"summary": list},
    "sanity.json": {"checks": list},
    "costs.json": {},
    "skipped.json": {"cells": list},
    **{f"{name}.json": {"parts": list} for name in STUDIES},
}


@dataclass(frozen=True, slots=True)
class StudyRows:
    """What a study kept: `rows` of all trials, the notes of its `parts`, and the folder with its arrays."""

    rows: pd.DataFrame
    parts: tuple[dict[str, Any], ...]
    folder: Path

    def arrays(self) -> list[tuple[dict[str, Any], Path]]:
        """Return the parts that kept arrays, each with the path of its `.npz` file."""
        there = [(part, self.folder / "examples" / f"{part['part']}.npz") for part in self.parts]
        return [(part, path) for part, path in there if path.is_file()]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder's content, as it was read.

    Attributes:
        path: the folder.
        manifest: what ran (`manifest.json`).
        plan: the plan's text (`plan.toml`).
        outcomes: one row per sample, target, attack and threat, without the probabilities; names are categories.
        metrics: one row per model, defence, source, attack, threat, trial and subgroup.
        statistics: `statistics.json`.
        checks: the checks of `sanity.json`.
        costs: `costs.json`.
        skipped: the cells of `skipped.json`.
        examples: the clean and adversarial pairs, in the order of their file names.
        studies: what the plan asked besides attacks: certification, detection, explanation; empty in older runs.
    """

    path: Path
    manifest: dict[str, Any]
    plan: str
    outcomes: pd.DataFrame
    metrics: pd.DataFrame
    statistics: dict[str, Any]
    checks: tuple[dict[str, Any], ...]
    costs: dict[str, Any]
    skipped: tuple[dict[str, Any], ...]
    examples: tuple[Example, ...]
    studies: dict[str, StudyRows] = field(default_factory=dict)


def read_run(run_dir: Path) -> RunFolder:
    """Read every file of the run folder `run_dir`.

    Raises:
        SpecError: a file is missing, cannot be read, lacks a key or a column, or has another format version.
    """
    if not run_dir.is_dir():
        raise SpecError(f"{run_dir} is not a folder: expected a run folder as written by `titer assess`")
    manifest = _read_json(run_dir, "manifest.json")
    return RunFolder(
        path=run_dir,
        manifest=manifest,
        plan=_read_text(run_dir, "plan.toml"),
        outcomes=_read_table(run_dir, "outcomes.parquet", _OUTCOME_COLUMNS, _NEWER_OUTCOMES, names=_NAMES),
        metrics=_read_table(run_dir, "metrics.parquet", _METRIC_COLUMNS, _NEWER_METRICS),
        statistics=_read_json(run_dir, "statistics.json"),
        checks=tuple(_read_json(run_dir, "sanity.json")["checks"]),
        costs=_read_json(run_dir, "costs.json"),
        skipped=tuple(_read_json(run_dir, "skipped.json")["cells"]),
        examples=tuple(read_example(path) for path in sorted((run_dir / "examples").glob("*.npz"))),
        studies={name: found for name in STUDIES if (found := _read_study(run_dir, name)) is not None},
    )


def _read_study(run_dir: Path, name: str) -> StudyRows | None:
    """Read one study's parts and rows; None where the plan had none."""
    if not (run_dir / f"{name}.json").is_file():
        return None
    parts = tuple(_read_json(run_dir, f"{name}.json")["parts"])
    if all("skipped" in part for part in parts):
        return StudyRows(rows=pd.DataFrame(), parts=parts, folder=run_dir / name)
    path = _existing(run_dir, f"{name}.parquet")
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} is damaged: {_one_line(error)}; expected a Parquet table") from error
    return StudyRows(rows=rows, parts=parts, folder=run_dir / name)


def _existing(run_dir: Path, name: str) -> Path:
    path = run_dir / name
    if not path.is_file():
        raise SpecError(f"{path} is missing: a run folder of format version {FORMAT_VERSION} must have it")
    return path


def _read_text(run_dir: Path, name: str) -> str:
    path = _existing(run_dir, name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as UTF-8 text: {_one_line(error)}") from error


def _read_json(run_dir: Path, name: str) -> dict[str, Any]:
    path = run_dir / name
    try:
        content = _without_nan(json.loads(_read_text(run_dir, name)))
    except json.JSONDecodeError as error:
        raise SpecError(f"{path} is damaged: {_one_line(error)}; expected JSON") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} holds a JSON {type(content).__name__}: expected an object")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise SpecError(f"{path} has format_version {version!r}: this version of Titer reads {FORMAT_VERSION} only")
    for key, kind in _KEYS[name].items():
        if not isinstance(content.get(key), kind):
            found = type(content[key]).__name__ if key in content else "nothing"
            raise SpecError(f"{path}: {key} is {found}: expected a {kind.__name__}")
    return content


def _read_table(
    run_dir: Path, name: str, columns: list[str], newer: dict[str, Any], names: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a table's known columns; `newer` ones may be absent, `names` come as categories: few values, many rows."""
    from pyarrow import parquet

    path = _existing(run_dir, name)
    try:
        there = [str(column) for column in parquet.read_schema(path).names]
        wanted = [one for one in there if one in (*columns, *newer) or one.startswith(("group:", "distance_"))]
        table: pd.DataFrame = parquet.read_table(path, columns=wanted, read_dictionary=list(names)).to_pandas()
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these two
        raise SpecError(f"{path} is damaged: {_one_line(error)}; expected a Parquet table") from error
    absent = [column for column in columns if column not in there]
    if absent:
        raise SpecError(f"{path} lacks the column(s) {', '.join(absent)}: found {', '.join(there)}")
    return table.assign(**{column: _completed(table, column, value) for column, value in newer.items()})


def _completed(table: pd.DataFrame, column: str, value: Any) -> Any:
    """Return a column with `value` where it, or a row of it, is not there: cells of older versions may stand beside."""
    if column not in table.columns:
        return value
    found = table[column]
    if not found.isna().any():
        return found
    return found.astype(object).where(found.notna(), value).astype(type(value))


def _without_nan(value: Any) -> Any:
    """Return `value` with NaN and infinities as None: a number that does not exist has one spelling here."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
