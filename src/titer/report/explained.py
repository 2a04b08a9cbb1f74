"""Where decisions rest before and after an attack: the study's numbers, and what the template shows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from titer.report.explained_page import page_of
from titer.report.load import RunFolder
from titer.report.numbers import NOTHING, Estimate
from titer.report.study import Study

_MOVED = tuple(f"{kind}_{name}" for kind in ("cosine", "overlap") for name in ("new", "other", "first", "noise"))
_INSIDE = tuple(f"inside_{name}" for name in ("clean", "new", "other", "first", "noise"))


@dataclass(frozen=True, slots=True)
class Moved:
    """How far one explainer's answers moved, over the explained rows of all trials; intervals are over patients.

    `new` is the attacked input explained for its new decision, `other` the clean input explained for that decision,
    `first` the attacked input for the decision without attack, `noise` the input with an unaimed change of the same
    size for that decision. `excess` is the overlap of `noise` less that of `first`, row by row. `inside` are shares
    within the lesion, for `clean` too.

    Attributes:
        rows: explained rows, of `patients`.
        noise_won: rows in which the unaimed change reached the attacker's goal as well.
        noise_length: mean Euclidean length of the unaimed change over that of the attack's.
    """

    explainer: str
    title: str
    rows: int
    patients: int
    cosine_new: Estimate
    cosine_other: Estimate
    cosine_first: Estimate
    cosine_noise: Estimate
    overlap_new: Estimate
    overlap_other: Estimate
    overlap_first: Estimate
    overlap_noise: Estimate
    excess: Estimate
    inside_clean: Estimate
    inside_new: Estimate
    inside_other: Estimate
    inside_first: Estimate
    inside_noise: Estimate
    noise_won: int
    noise_length: float | None


@dataclass(frozen=True, slots=True)
class Case:
    """One defended model under one threat: what was attacked and flipped in all trials, and what its explainers say.

    `alike_clean` and `alike_attacked` are mean shares of a row's nearest clean neighbours, in the feature space of the
    first trial, that have its true class; `left_out` pairs what could not be done with its reason.
    """

    model: str
    defense: str
    title: str
    family: str
    threat: str
    attack: str
    studied: int
    attacked: int
    flipped: int
    trials: int
    moved: tuple[Moved, ...]
    alike_clean: Estimate
    alike_attacked: Estimate
    features: int | None
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """The numbers of the study; they stand in `report.json` as they are here."""

    cases: tuple[Case, ...]


def explained(run: RunFolder, study: Study) -> Explained | None:
    """Draw the numbers from `run`; None where the plan did not ask."""
    if "explanation" not in run.studies:
        return None
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for part in run.studies["explanation"].parts:
        spec = part["spec"]
        grouped.setdefault((part["model"], part["defense"], str(spec.get("family", ""))), []).append(part)
    order = {label: place for place, label in enumerate(study.defenses)}
    cases = [_case(run, study, key, parts) for key, parts in grouped.items()]
    return Explained(tuple(sorted(cases, key=lambda one: (one.model, order.get(one.defense, len(order))))))


def explained_context(found: Explained | None, run: RunFolder, study: Study) -> dict[str, Any] | None:
    """Return what the template shows, None where there is nothing."""
    return None if found is None else page_of(found.cases, run, study)


def _case(run: RunFolder, study: Study, key: tuple[str, ...], parts: Sequence[dict[str, Any]]) -> Case:
    model, defense, family = key
    spec = parts[0]["spec"]
    threat, attack = str(spec.get("threat", "")), str(spec.get("attack", ""))
    rows = run.studies["explanation"].rows
    if len(rows):
        rows = rows[(rows["model"] == model) & (rows["defense"] == defense) & (rows["family"] == family)]
    counted = {part["trial"]: part["facts"] for part in parts if "facts" in part}
    maps = [part["facts"] for part in parts if "map" in part["spec"] and "facts" in part]
    titles = {part["spec"]["explainer"]: part["spec"]["title"] for part in parts if "explainer" in part["spec"]}
    alike = [_alike(rows, attacked=attacked) for attacked in (False, True)]
    return Case(
        model=model,
        defense=defense,
        title=study.defense_title(defense),
        family=family,
        threat=threat,
        attack=study.attack_title(attack) if attack else "",
        studied=sum(facts["studied"] for facts in counted.values()),
        attacked=sum(facts["attacked"] for facts in counted.values()),
        flipped=sum(facts["flipped"] for facts in counted.values()),
        trials=len(counted),
        moved=tuple(one for name, title in titles.items() if (one := _moved(rows, name, title)) is not None),
        alike_clean=alike[0],
        alike_attacked=alike[1],
        features=maps[0]["features"] if maps else None,
        left_out=_left_out(parts),
    )


def _left_out(parts: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return what could not be done with its reason, once for all trials."""
    found: dict[tuple[str, str], None] = {}
    for part in parts:
        if "skipped" in part:
            spec = part["spec"]
            what = spec.get("title") or ("Feature map" if "map" in spec else "All explanations")
            found[str(what), str(part["skipped"])] = None
    return tuple(found)


def _moved(rows: pd.DataFrame, explainer: str, title: str) -> Moved | None:
    mine = rows[(rows["kind"] == "saliency") & (rows["explainer"] == explainer)] if len(rows) else rows
    if mine.empty:
        return None
    mine = mine.assign(excess=mine["overlap_noise"] - mine["overlap_first"])
    found = _means(mine, [*_MOVED, *_INSIDE, "excess"])
    length = float(mine["noise_length"].mean())
    return Moved(
        explainer=explainer,
        title=title,
        rows=len(mine),
        patients=int(mine["patient_id"].nunique()),
        noise_won=int(mine["noise_won"].sum()),
        noise_length=length if math.isfinite(length) else None,
        **found,
    )


def _alike(rows: pd.DataFrame, *, attacked: bool) -> Estimate:
    """Return the mean share of like neighbours: of the clean rows that were attacked, or of the attacked ones."""
    if rows.empty:
        return NOTHING
    points = rows[rows["kind"] == "map"]
    hit = points[points["attacked"]]
    if attacked:
        return _means(hit, ["same_class_neighbours"])["same_class_neighbours"]
    before = points[~points["attacked"] & points["sample_id"].isin(hit["sample_id"])]
    return _means(before, ["same_class_neighbours"])["same_class_neighbours"]


def _means(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, Estimate]:
    """Return the mean of each column over its rows with a number, and a percentile bootstrap interval over patients."""
    from titer.stats.intervals import ratio_bootstrap  # here: a report without explanations needs no statistics

    _, patient = np.unique(rows["patient_id"].to_numpy().astype(str), return_inverse=True)
    patients = int(patient.max(initial=-1)) + 1
    values = rows[list(columns)].to_numpy(dtype=np.float64)
    there = np.isfinite(values)
    sums, counts = np.zeros((patients, len(columns))), np.zeros((patients, len(columns)))
    np.add.at(sums, patient, np.where(there, values, 0.0))
    np.add.at(counts, patient, there.astype(np.float64))
    limits = ratio_bootstrap(sums, counts) if patients > 1 else np.full((len(columns), 2), np.nan)
    trials = int(rows["trial"].nunique()) if patients else 0
    return {
        name: _estimate(values[there[:, i], i], limits[i], int((counts[:, i] > 0).sum()), trials)
        for i, name in enumerate(columns)
    }


def _estimate(values: np.ndarray, limits: np.ndarray, patients: int, trials: int) -> Estimate:
    """Return a mean with its interval; none for fewer than two patients, or where all values are equal."""
    if not values.size:
        return NOTHING
    from titer.stats.intervals import is_constant

    mean = float(values.mean())
    if patients < 2 or is_constant(values):
        return Estimate(mean=mean, n_trials=trials)
    return Estimate(mean=mean, low=float(limits[0]), high=float(limits[1]), over="patients", n_trials=trials)
