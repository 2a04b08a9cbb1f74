"""Section `warnings`: plain sentences on what the numbers cannot carry, each derived from the tables at hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from titer.stats.effects import smallest_wilcoxon_p
from titer.stats.evidence import Evidence, Setting
from titer.stats.sections.fields import Row
from titer.stats.tables import WORST_CASE

FEW_TRIALS = 10
FEW_SAMPLES = 20
FEW_PATIENTS = 30
ENOUGH_POWER = 0.8


def doubts(evidence: Evidence, metrics: pd.DataFrame, sections: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return the warnings, in the order: trials, patients, completeness of the tables, power, subgroups."""
    return [
        *_trials(evidence),
        *_patients(evidence),
        *_incomplete(evidence),
        *_unequal_attacks(evidence),
        *_only_transferred(evidence),
        *_won_but_right(evidence),
        *_power(sections),
        *_subgroups(metrics),
    ]


def _trials(evidence: Evidence) -> Iterator[str]:
    n, floor = len(evidence.trials), smallest_wilcoxon_p(len(evidence.trials))
    if n < 2:
        yield (
            f"{n or 'No'} trial was run: no interval and no test over trials can be given; "
            "only the per-sample tests and the intervals over patients stand."
        )
    elif floor > evidence.alpha:
        yield (
            f"Only {n} trials were run: the smallest two-sided p value of the Wilcoxon test is {floor:.4g}, "
            f"above {evidence.alpha:g}, so wherever it was used no difference could be found significant."
        )
    elif n < FEW_TRIALS:
        yield f"Only {n} trials were run: the test of normality that chooses between the tests sees little in so few."
    tests = _test_sets(evidence)
    if n >= 2 and len(set(tests.values())) == 1:
        yield (
            f"All {n} trials are judged on the same {len(next(iter(tests.values())))} test samples: they are "
            "retrainings, not independent replications, so intervals and tests over trials say nothing about "
            "other patients."
        )
    elif n >= 2 and sum(map(len, tests.values())) > len(frozenset().union(*tests.values())):
        yield (
            "The trials' test sets overlap (they are drawn again from the same patients): the trials are not "
            "independent, and intervals and tests over trials are too sure."
        )


def _patients(evidence: Evidence) -> Iterator[str]:
    if evidence.patients < FEW_PATIENTS:
        yield (
            f"There are only {evidence.patients} patients in the test set: bootstrap intervals over patients are "
            "too narrow with so few."
        )
    samples = len(frozenset().union(*_test_sets(evidence).values()))
    if samples > evidence.patients:
        yield (
            f"The {samples} test samples come from {evidence.patients} patients: samples of one patient are not "
            "independent, so intervals and McNemar tests take the patient as their unit."
        )


def _incomplete(evidence: Evidence) -> Iterator[str]:
    short = [each for each, trials in evidence.judged.items() if len(trials) < len(evidence.trials)]
    if short:
        yield f"Not every trial is there for {len(short)} settings, for example {_name(short[0])}."
    partial = [
        each
        for each, trials in evidence.judged.items()
        for trial, judged in trials.items()
        if trial in evidence.samples(_clean(evidence, each))
        and judged.sample.size < evidence.samples(_clean(evidence, each))[trial].sample.size
    ]
    if partial:
        yield (
            f"Fewer samples were attacked than the clean test set holds in {len(partial)} cells, for example "
            f"{_name(partial[0])}: their figures speak of those samples only."
        )
    without = [each for each in evidence.settings() if _clean(evidence, each) is None]
    if without:
        yield f"Clean rows are missing for {len(without)} settings, for example {_name(without[0])}."


def _unequal_attacks(evidence: Evidence) -> Iterator[str]:
    """Warn where a worst case stands on fewer attacks than another's: it flatters the defence that escaped one."""
    ran: dict[tuple[str, str], dict[tuple[str, int], set[str]]] = defaultdict(lambda: defaultdict(set))
    for setting, trials in evidence.judged.items():
        if setting.adaptive and setting.attack != WORST_CASE:
            for trial in trials:
                ran[setting.model, setting.threat][setting.defense, trial].add(setting.attack)
    for (model, threat), per_defense in ran.items():
        every: set[str] = set().union(*per_defense.values())
        escaped: dict[str, set[str]] = defaultdict(set)
        for (defense, _), attacks in per_defense.items():
            escaped[defense] |= every - attacks
        for defense, attacks in escaped.items():
            if attacks:
                yield (
                    f"The worst case of {model} with defence {defense} under {threat} lacks "
                    f"{', '.join(sorted(attacks))}, which ran elsewhere: its robustness may be overestimated."
                )


def _only_transferred(evidence: Evidence) -> Iterator[str]:
    adaptive = {(each.model, each.defense, each.threat) for each in evidence.settings() if each.adaptive}
    carried = {(each.model, each.defense, each.threat): each for each in evidence.settings() if not each.adaptive}
    for key, setting in carried.items():
        if key not in adaptive:
            yield (
                f"{setting.model} with defence {setting.defense} met {setting.threat} only with inputs found on "
                "another model: nothing is known of an attacker who adapts."
            )


def _won_but_right(evidence: Evidence) -> Iterator[str]:
    rows = sum(
        int((each.won & each.right).sum())
        for setting, trials in evidence.judged.items()
        if setting.adaptive
        for each in trials.values()
    )
    if rows:
        yield (
            f"{rows} rows count as won by the attack although the judged prediction is right: accuracy under attack is "
            "higher there than the share of rows that withstood."
        )


SPOKEN = {
    "before_after": "before and after attack",
    "across_defenses": "across defences",
    "versus_undefended": "of a defence with no defence",
}


def _power(sections: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for name, rows in sections.items():
        tested = [row for row in rows if row["p"] is not None and not np.isnan(row["p"])]
        weak = [row for row in tested if not row["significant"] and not row["power"] >= ENOUGH_POWER]
        if weak:
            yield (
                f"In {len(weak)} of {len(tested)} comparisons {SPOKEN[name]} no difference was found and the power is "
                f"below {ENOUGH_POWER:g} or unknown: a difference is not shown to be absent there."
            )
        if len(tested) < len(rows):
            untested = len(rows) - len(tested)
            yield f"In {untested} of {len(rows)} comparisons {SPOKEN[name]} no test over trials could be done."


def _subgroups(metrics: pd.DataFrame) -> Iterator[str]:
    parts = metrics[metrics["group"] != "all"]
    small = parts[parts["n"] < FEW_SAMPLES].sort_values("n", kind="stable").drop_duplicates(["group", "value"])
    named = [
        f"{group} = {value} ({n})" for group, value, n in zip(small["group"], small["value"], small["n"], strict=True)
    ]
    if named:
        yield (
            f"Subgroups with fewer than {FEW_SAMPLES} samples in a trial, whose figures are too uncertain to rely on: "
            f"{_listed(named)}."
        )
    # rows that are graded by an error have no class to lack, save those about one finding
    rated = parts[parts["n_positive"].notna()] if metrics["clean_error"].notna().any() else parts
    one_sided = rated[rated["balanced_accuracy"].isna()].drop_duplicates(["group", "value"])
    lacking = [f"{group} = {value}" for group, value in zip(one_sided["group"], one_sided["value"], strict=True)]
    if lacking:
        yield f"Subgroups that lack a class in a trial, so that some figures are undefined: {_listed(lacking)}."


def _test_sets(evidence: Evidence) -> dict[int, frozenset[int]]:
    found: dict[int, frozenset[int]] = {}
    for trials in evidence.judged.values():
        for trial, judged in trials.items():
            known = found.get(trial, frozenset())
            if judged.sample.size > len(known):
                found[trial] = known | frozenset(judged.sample.tolist())
    return found


def _clean(evidence: Evidence, setting: Setting) -> Setting | None:
    return evidence.clean.get((setting.model, setting.defense))


def _name(setting: Setting) -> str:
    source = "" if setting.source == setting.defense else f" (inputs from {setting.source})"
    return f"{setting.model}, defence {setting.defense}, {setting.attack}, {setting.threat}{source}"


def _listed(names: Iterable[str], most: int = 12) -> str:
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
