"""Models of other sites, data sets and architectures: whose inputs fool whom, and which pairs share weaknesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from titer.report.detected_numbers import share
from titer.report.format import NBSP
from titer.report.heatmap import heatmap, letter
from titer.report.load import RunFolder
from titer.report.marks import Figure
from titer.report.numbers import NOTHING, Estimate
from titer.report.study import Study
from titer.report.tables import Table, plain
from titer.report.wording import estimate

_HALF = 0.5
"""A pair shares a weakness where each one's inputs do at least half to the other of what the other's own do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models, and what part of each one's own attack success the other one's inputs reach there, in both ways.

    `kept` is the smaller part of the two, noise taken off, with its interval over patients: the pair shares a weakness
    where its lower end is at least one half.
    """

    one: str
    other: str
    kept: Estimate
    shares: bool


@dataclass(frozen=True, slots=True)
class Sharing:
    """One family of threats at its largest budget.

    `success` and `noise` are [found on][shown to]: the share of rows, right when clean, that the inputs made wrong, and
    that the same changes without aim did. `refused` pairs a model that could not be made or attacked with its reason.
    """

    family: str
    threat: str
    names: tuple[str, ...]
    success: tuple[tuple[Estimate, ...], ...]
    noise: tuple[tuple[Estimate, ...], ...]
    pairs: tuple[Pair, ...]
    refused: tuple[tuple[str, str], ...]


def sharing(run: RunFolder) -> tuple[Sharing, ...]:
    """Draw the numbers from `run`; empty where the plan did not ask."""
    if "transfer" not in run.studies:
        return ()
    found = run.studies["transfer"]
    families = dict.fromkeys(str(part["spec"].get("threat_family", "")) for part in found.parts)
    return tuple(_of_family(found.rows, found.parts, family) for family in families if family)


def _of_family(table: pd.DataFrame, parts: Sequence[dict[str, Any]], family: str) -> Sharing:
    mine = [part for part in parts if part["spec"].get("threat_family") == family]
    names = tuple(dict.fromkeys(str(part["spec"]["found_on"]) for part in mine))
    rows = table[(table["threat_family"] == family) & table["at_stake"].astype(bool)] if len(table) else table
    refused = {name: reason.removeprefix(f"{name}: ") for name, reason in _refused(mine)}
    known = tuple(name for name in names if name not in refused)
    return Sharing(
        family=family,
        threat=str(mine[0]["spec"]["threat"]),
        names=known,
        success=_matrix(rows, known, "won"),
        noise=_matrix(rows, known, "noise_won"),
        pairs=tuple(_pair(rows, one, other) for one, other in combinations(known, 2)),
        refused=tuple(refused.items()),
    )


def _refused(parts: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(str(part["spec"]["found_on"]), str(part["skipped"])) for part in parts if "skipped" in part]


def _matrix(rows: pd.DataFrame, names: Sequence[str], column: str) -> tuple[tuple[Estimate, ...], ...]:
    return tuple(tuple(_share(rows, one, other, column) for other in names) for one in names)


def _cell(rows: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    return rows[(rows["found_on"] == one) & (rows["shown_to"] == other)]


def _share(rows: pd.DataFrame, one: str, other: str, column: str) -> Estimate:
    mine = _cell(rows, one, other)
    return share(mine.assign(alarm=mine[column])) if len(mine) else NOTHING


def _pair(rows: pd.DataFrame, one: str, other: str) -> Pair:
    ways = [_kept(rows, *way) for way in ((one, other), (other, one))]
    known = [way for way in ways if way.mean is not None]
    least = min(known, key=lambda way: way.mean or 0.0) if len(known) == len(ways) else NOTHING
    return Pair(one=one, other=other, kept=least, shares=least.low is not None and least.low >= _HALF)


def _kept(rows: pd.DataFrame, source: str, target: str) -> Estimate:
    """Return what part of the target's own losses inputs found on the source cause, unaimed losses taken off both."""
    from titer.stats.intervals import ratio_bootstrap

    keys = ["trial", "patient_id"]
    aimed, own = (_beyond_noise(_cell(rows, on, target), keys) for on in (source, target))
    sums, counts = (one.reindex(own.index, fill_value=0.0).to_numpy(dtype=np.float64) for one in (aimed, own))
    if not len(counts) or counts.sum() <= 0:
        return NOTHING
    patients = own.index.get_level_values("patient_id")
    stacked = pd.DataFrame({"sums": sums, "counts": counts}).groupby(np.asarray(patients)).sum().to_numpy()
    low, high = ratio_bootstrap(stacked[:, :1], stacked[:, 1:])[0]
    trials = len(own.index.get_level_values("trial").unique())
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), "patients", None, trials)


def _beyond_noise(rows: pd.DataFrame, keys: list[str]) -> pd.Series[Any]:
    """Return by trial and patient the rows that fell, less those that the same changes without aim brought down."""
    excess = rows["won"].astype(float) - rows["noise_won"].astype(float)
    found: pd.Series[Any] = excess.groupby([rows[key] for key in keys]).sum()
    return found


def sharing_context(found: tuple[Sharing, ...], study: Study) -> list[dict[str, Any]]:
    """Return what the template shows: a figure and a table for each family, and the pairs in words."""
    return [
        {"threat": one.threat, "figure": _figure(one, study), "table": _table(one), "pairs": _words(one),
         "refused": one.refused}
        for one in found
    ]  # fmt: skip


def _figure(one: Sharing, study: Study) -> Figure:
    caption = (
        f"Attack success (%) under {one.threat}: share of {study.subject[1]}, right when clean, that were made wrong. "
        "Rows: the model that inputs were found on; columns: the model that they were shown to, by the letter of its "
        "row. Outlined: the same model."
    )
    own = list(range(len(one.names)))
    return heatmap(f"sharing {one.family}", one.names, one.names, one.success, own, caption, one.threat)


def _table(one: Sharing) -> Table:
    headings = [f"{letter(index)} {name}" for index, name in enumerate(one.names)]
    rows = [
        (name, *(f"{estimate(value)}; unaimed {_percent(noise)}" for value, noise in zip(*values, strict=True)))
        for name, *values in zip(one.names, one.success, one.noise, strict=True)
    ]
    caption = f"The same with 95 % intervals, and what the same changes do without aim, under {one.threat}"
    return plain(caption, ("Found on", *headings), rows)


def _percent(value: Estimate) -> str:
    return "not run" if value.mean is None else f"{100 * value.mean:.0f}{NBSP}%"


def _words(one: Sharing) -> list[str]:
    """Say which pairs share weaknesses, and which share little."""
    return [
        f"{pair.one} and {pair.other}: at least {_percent(pair.kept)} of what fools each"
        + ("" if pair.kept.low is None else f" ({100 * pair.kept.low:.0f} to {100 * (pair.kept.high or 0):.0f})")
        for pair in one.pairs
        if pair.shares
    ]
