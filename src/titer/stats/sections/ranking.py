"""Section `ranking`: defences from the best to the worst, with letters for those that no test told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from titer.stats import tables
from titer.stats.comparisons import holm
from titer.stats.evidence import Evidence, Setting, same_samples
from titer.stats.groups import PARAMETRIC
from titer.stats.letters import compact_letters
from titer.stats.mcnemar import mcnemar
from titer.stats.sections.fields import Row

TUKEY = "Tukey HSD over trials"
PATIENTS = "McNemar's test over patients, Holm-corrected"


def ranking(evidence: Evidence, across: Sequence[Row]) -> list[Row]:
    """Return one row per model and threat in the worst case, and one per model on clean rows.

    `across` is the section `across_defenses`. Where its test of the row is an ANOVA, pairs are those of Tukey's HSD.
    Elsewhere a few trials' ranks can tell nothing apart, and the patients are asked: two defences differ where
    McNemar's p of the first trial, Holm-corrected over all pairs of the row, and the median p over trials are both
    below alpha, and every trial that has a difference has it the same way round.
    """
    wanted = [row for row in across if row["attack"] in (tables.NO_ATTACK, tables.WORST_CASE) and row["means"]]
    return [_row(evidence, row) for row in wanted]


def _row(evidence: Evidence, row: Row) -> Row:
    means: Mapping[str, float] = row["means"]
    names = sorted((name for name in means if not np.isnan(means[name])), key=lambda name: -means[name])
    usual = row["method"] == PARAMETRIC
    different = _by_tukey(row) if usual else _by_patients(evidence, row, names)
    letters = compact_letters(names, sorted(different, key=sorted))
    labels = {key: row[key] for key in ("model", "attack", "threat")}
    order = [{"defense": name, "mean": means[name], "letters": letters[name]} for name in names]
    return labels | {"metric": "accuracy", "test": TUKEY if usual else PATIENTS, "order": order}


def _by_tukey(row: Row) -> set[frozenset[str]]:
    return {frozenset((pair["a"], pair["b"])) for pair in row["pairs"] if pair["significant"]}


def _by_patients(evidence: Evidence, row: Row, names: Sequence[str]) -> set[frozenset[str]]:
    settings = {name: _setting(evidence, row, name) for name in names}
    pairs = list(combinations(names, 2))
    tests = [_tests(evidence, settings[a], settings[b]) for a, b in pairs]
    first = holm(np.array([p[0] if p.size else np.nan for p, _ in tests]))
    return {
        frozenset(pair)
        for pair, p, (every, ways) in zip(pairs, first, tests, strict=True)
        if every.size and p < evidence.alpha and np.median(every) < evidence.alpha and len(ways - {0}) == 1
    }


def _setting(evidence: Evidence, row: Row, name: str) -> Setting | None:
    if row["attack"] == tables.NO_ATTACK:
        return evidence.clean.get((row["model"], name))
    return Setting(row["model"], name, name, row["attack"], row["threat"])


def _tests(evidence: Evidence, one: Setting | None, other: Setting | None) -> tuple[Any, set[int]]:
    """Return McNemar's p of each trial, float[T], and which way round the trials are."""
    p, ways = [], set()
    for trial, judged in evidence.samples(one).items():
        beside = evidence.samples(other).get(trial)
        if beside is not None:
            a, b = same_samples(judged, beside)
            found = mcnemar(judged.right[a], beside.right[b], judged.patient[a])
            p.append(found.p)
            ways.add(int(np.sign(found.gained - found.lost)))
    return np.array(p, dtype=np.float64), ways
