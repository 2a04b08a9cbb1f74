"""Accuracy and sensitivity of each subgroup, before attack and in the worst case."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from titer.report.goals import goal_class
from titer.report.load import RunFolder
from titer.report.numbers import Estimate
from titer.report.shares import wilson
from titer.report.study import WORST, Study, Threat
from titer.report.tallies import pick
from titer.report.trust import FEW_SUBJECTS


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One subgroup of one defence under one threat.

    Attributes:
        model: the base model.
        defense: label of the defence.
        threat: label of the threat (largest budget of its family).
        group: the subgroup column, `all` for everybody.
        value: the subgroup.
        n: mean number of test rows of one trial.
        few: fewer than 20 rows: the numbers say little.
        clean: accuracy without attack.
        robust: accuracy in the worst case.
        sensitivity_clean: sensitivity without attack; under a goal about one finding of several, that finding's.
        sensitivity_robust: sensitivity in the worst case.
    """

    model: str
    defense: str
    threat: str
    group: str
    value: str
    n: float
    few: bool
    clean: Estimate
    robust: Estimate
    sensitivity_clean: Estimate
    sensitivity_robust: Estimate


def subgroup_rows(run: RunFolder, study: Study) -> tuple[GroupRow, ...]:
    """Return one row for each model, defence, largest budget and subgroup; nothing where the data have no subgroups."""
    if not study.groups:
        return ()
    metrics = run.metrics[run.metrics["source"] == run.metrics["defense"]]
    keys = ["model", "defense", "group", "value"]
    clean = dict(iter(metrics[metrics["attack"] == "none"].groupby(keys, sort=False)))
    rows = []
    for family in study.families:
        threat = study.largest(family).label
        worst = metrics[(metrics["attack"] == WORST) & (metrics["threat"] == threat)]
        before_goal = _before_goal(run, study, study.largest(family))
        for key, after in worst.groupby(keys, sort=False):
            model, defense, group, value = map(str, key)
            before = (clean if before_goal is None else before_goal).get((model, defense, group, value))
            rows.append(_row(study, (model, defense, threat, group, value), before, after))
    return tuple(sorted(rows, key=lambda row: _place(study, row)))


def _before_goal(run: RunFolder, study: Study, threat: Threat) -> dict[tuple[str, ...], pd.DataFrame] | None:
    """Return accuracy and sensitivity of the one finding of several that a goal is about, without attack.

    The clean rows of the metrics are about all findings at once, so they are counted off the attacked rows: one frame
    per model, defence, group and value, with one row a trial. None where the goal is about no single finding.
    """
    if study.output != "labels" or goal_class(threat.goal, study) is None:
        return None
    rows = run.outcomes[pick(run.outcomes, {"threat": threat.label})].drop(columns="value", errors="ignore")
    rows = rows[rows["source"].astype(object) == rows["defense"].astype(object)]
    rows = rows.drop_duplicates(["model", "defense", "trial", "sample_id"])
    right = (rows["clean_prediction"] == rows["label"]).astype(float)
    rows = rows.assign(accuracy=right, sensitivity=right.where(rows["label"] == 1))
    found: dict[tuple[str, ...], pd.DataFrame] = {}
    for group in ("all", *study.groups):
        parts = rows.assign(value="all" if group == "all" else rows[f"group:{group}"])
        means = parts.groupby(["model", "defense", "value", "trial"], observed=True)[["accuracy", "sensitivity"]].mean()
        for (model, defense, value), part in means.groupby(level=["model", "defense", "value"], observed=True):
            found[str(model), str(defense), group, str(value)] = part
    return found


def _place(study: Study, row: GroupRow) -> tuple[int, int, int, int, str]:
    threats = [study.largest(family).label for family in study.families]
    return (
        _index(study.models, row.model),
        threats.index(row.threat),
        _index(study.defenses, row.defense),
        _index(("all", *study.groups), row.group),
        row.value,
    )


def _index(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _row(study: Study, key: tuple[str, ...], before: pd.DataFrame | None, after: pd.DataFrame) -> GroupRow:
    model, defense, threat, group, value = key
    n = float(after["n"].mean())
    known = after["n_positive"].dropna().to_numpy(dtype=float)
    positives = float(known.mean()) if known.size else n / max(1, len(study.classes))
    return GroupRow(
        model=model,
        defense=defense,
        threat=threat,
        group=group,
        value=value,
        n=n,
        few=n < FEW_SUBJECTS,
        clean=_share(before, "accuracy", n),
        robust=_share(after, "accuracy", n),
        sensitivity_clean=_share(before, "sensitivity", positives),
        sensitivity_robust=_share(after, "sensitivity", positives),
    )


def _share(rows: pd.DataFrame | None, metric: str, n: float) -> Estimate:
    """Return the mean over trials with Wilson's interval for the patients of ONE trial.

    Trials share patients where the test part is fixed, so counting every trial's rows would flatter.
    """
    mean = float(rows[metric].mean()) if rows is not None else math.nan
    if not math.isfinite(mean):
        return Estimate()
    if not (math.isfinite(n) and n > 0):
        return Estimate(mean=mean)
    low, high = wilson(np.array(mean), n)
    return Estimate(mean=mean, low=float(low), high=float(high), over="patients")
