"""Poisoned trainings: the study's numbers, drawn from the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titer.report.load import RunFolder
from titer.report.numbers import NOTHING, Estimate
from titer.report.poisoned_rows import AtShare, Cleaning, Poison
from titer.report.shares import share
from titer.report.study import Study
from titer.report.tables import settings

NOT_CLEANED = "none"


@dataclass(frozen=True, slots=True)
class PoisonedNumbers:
    """The numbers of the study; they stand in `report.json` as they are here.

    Attributes:
        poisons: one entry a poison and defended model.
        refusals: label of the poison, the defence, and why it was not tried.
        removed: share of the training rows that a cleaning may leave out.
        examples: the poison's label and the path of changed rows, where any were kept.
    """

    poisons: tuple[Poison, ...]
    refusals: tuple[tuple[str, str, str], ...]
    removed: float | None
    examples: tuple[tuple[str, str], ...]


def poisoned(run: RunFolder, study: Study) -> PoisonedNumbers | None:
    """Draw the numbers from `run`; None where the plan did not ask."""
    found = run.studies.get("poisoning")
    if found is None:
        return None
    facts: dict[tuple[str, str, str], dict[str, Any]] = {}
    for part in found.parts:
        if "facts" in part:
            facts.setdefault((str(part["model"]), str(part["defense"]), str(part["facts"]["poison"])), part["facts"])
    order = {label: place for place, label in enumerate(study.defenses)}
    keys = sorted(facts, key=lambda key: (study.models.index(key[0]), order.get(key[1], len(order))))
    paths = {str(part["facts"]["poison"]): path for part, path in found.arrays() if "facts" in part}
    return PoisonedNumbers(
        poisons=tuple(_poison(key, facts[key], found.rows) for key in keys),
        refusals=_refusals(found.parts, study),
        removed=next((float(one["remove"]) for one in facts.values()), None),
        examples=tuple((label, _relative(path, run.path)) for label, path in paths.items()),
    )


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _poison(key: tuple[str, str, str], facts: dict[str, Any], rows: pd.DataFrame) -> Poison:
    model, defense, label = key
    mine = (rows["model"] == model) & (rows["defense"] == defense) & (rows["poison"] == label)
    rows = rows[mine.to_numpy(dtype=bool)]
    bare = rows[(rows["cleaner"] == NOT_CLEANED).to_numpy(dtype=bool)]
    first = bare[(bare["share"] == bare["share"].min()).to_numpy(dtype=bool)]
    spec = {name: value for name, value in facts["settings"].items() if name not in ("name", "share")}
    return Poison(
        model=model,
        defense=defense,
        label=label,
        title=str(facts["title"]),
        paper=str(facts["paper"]),
        ids=tuple(map(str, facts["threats"])),
        settings=settings({name: value for name, value in spec.items() if value is not None}),
        aim=str(facts["aim"]),
        target=str(facts["target"] or ""),
        source=str(facts["source"] or ""),
        inputs=float(bare["n_success"].mean()),
        clean=_share(first, "clean_accuracy_before", "n"),
        attacked=_share(first, "class_accuracy_before", "n_class"),
        success=_share(first, "success_before", "n_success"),
        shares=tuple(_at(rows, value, facts) for value in sorted(rows["share"].unique())),
        trials=int(bare["trial"].nunique()),
    )


def _at(rows: pd.DataFrame, value: float, facts: dict[str, Any]) -> AtShare:
    rows = rows[(rows["share"] == value).to_numpy(dtype=bool)]
    bare = rows[(rows["cleaner"] == NOT_CLEANED).to_numpy(dtype=bool)]
    return AtShare(
        share=float(value),
        changed=float(bare["changed"].mean()),
        rows=float(bare["rows"].mean()),
        clean=_share(bare, "clean_accuracy", "n"),
        lost=_known((bare["clean_accuracy_before"] - bare["clean_accuracy"]).mean()),
        attacked=_share(bare, "class_accuracy", "n_class"),
        success=_share(bare, "success", "n_success"),
        cleanings=tuple(
            _cleaning(rows[(rows["cleaner"] == label).to_numpy(dtype=bool)], str(label), str(one["title"]))
            for label, one in facts["cleaners"].items()
        ),
    )


def _cleaning(rows: pd.DataFrame, label: str, title: str) -> Cleaning:
    caught = rows.assign(caught=rows["removed_changed"] / rows["changed"])
    return Cleaning(
        cleaner=label,
        title=title,
        found=_share(rows, "detection_rate", "changed"),
        auroc=_share(rows, "auroc", "changed"),
        removed=_known(rows["removed"].mean()),
        caught=_share(caught, "caught", "changed"),
        clean=_share(rows, "clean_accuracy", "n"),
        success=_share(rows, "success", "n_success"),
        refused=next((str(reason) for reason in rows["refused"] if reason), ""),
    )


def _share(rows: pd.DataFrame, column: str, count: str) -> Estimate:
    """Return the mean of a share over trials with its interval; `count` says of how many rows one trial's share is."""
    values = rows[column].to_numpy(dtype=np.float64)
    return share(values, float(rows[count].mean())) if len(values) else NOTHING


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _refusals(parts: tuple[dict[str, Any], ...], study: Study) -> tuple[tuple[str, str, str], ...]:
    """Return each poison that was not tried, on what, and why; a reason once for all shares of which it is."""
    found = [
        (
            str((part.get("spec") or {}).get("poison") or "every poison"),
            study.defense_title(str(part["defense"])),
            str(part["skipped"]).strip().rstrip("."),
        )
        for part in parts
        if "skipped" in part
    ]
    return tuple(dict.fromkeys(found))
