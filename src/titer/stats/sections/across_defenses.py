"""Section `across_defenses`: accuracy of all defences of a model under one attack, or on clean rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from titer.stats.evidence import Evidence, Setting, matched
from titer.stats.groups import PARAMETRIC, GroupComparison, compare_groups
from titer.stats.sections.fields import Row, with_holm


def across_defenses(evidence: Evidence) -> list[Row]:
    """Return one row per (model, attack, threat), clean rows and worst cases included: omnibus test and pairs.

    The Holm family is all omnibus tests of this section. A pair is `significant` only where its own corrected p and
    the omnibus test's `p_holm` are both below alpha, so that many settings do not make many chance findings.
    """
    contests: dict[tuple[str, str, str], dict[str, Setting]] = {}
    for setting in [*evidence.settings(attacked=False), *evidence.settings()]:
        if setting.adaptive or evidence.clean.get((setting.model, setting.defense)) == setting:
            contest = contests.setdefault((setting.model, setting.attack, setting.threat), {})
            contest[setting.defense] = setting
    rows = [_row(evidence, defenses) for defenses in contests.values()]
    return [_gated(row) for row in with_holm(rows, evidence.alpha)]


def _row(evidence: Evidence, defenses: Mapping[str, Setting]) -> Row:
    series = matched(*(evidence.figure(setting, "accuracy") for setting in defenses.values()))
    samples = dict(zip(defenses, series, strict=True))
    means = {name: float(values.mean()) if values.size else float("nan") for name, values in samples.items()}
    found = compare_groups(samples, alpha=evidence.alpha)
    setting = next(iter(defenses.values()))
    labels = {"model": setting.model, "attack": setting.attack, "threat": setting.threat}
    head = labels | dict(evidence.budgets[setting]) | {"metric": "accuracy", "defenses": list(defenses), "means": means}
    return head | _test_fields(found)


def _test_fields(found: GroupComparison) -> dict[str, Any]:
    shapiro = {name: each.p for name, each in found.shapiro.items()}
    return {
        "n_trials": found.n,
        "method": found.method,
        "omnibus_test": found.omnibus_test,
        "statistic": found.statistic,
        "F": found.statistic if found.method == PARAMETRIC else float("nan"),
        "df1": found.df1,
        "df2": found.df2,
        "p": found.p,
        "eta_squared": found.eta_squared,
        "kendalls_w": found.kendalls_w,
        "power": found.power,
        "shapiro_p": shapiro,
        "levene_p": found.levene_p,
        "pair_test": found.pair_test,
        "pairs": [asdict(pair) for pair in found.pairs],
        "reason": found.reason,
    }


def _gated(row: Row) -> Row:
    pairs = [pair | {"significant": pair["significant"] and row["significant"]} for pair in row["pairs"]]
    return row | {"pairs": pairs}
