"""Outputs that are no class: how far the prediction is off, before attack and in the worst case."""

from __future__ import annotations

from dataclasses import dataclass

from titer.report.goals import goal_words
from titer.report.numbers import Estimate, Numbers
from titer.report.study import Study

_ERROR = {"value": "absolute error", "labels": "wrong findings", "mask": "1 − Dice", "other": "error"}
_RIGHT = {
    "value": "the predicted value is off by no more than the tolerance of the plan",
    "labels": "every finding is rightly named or rightly left out",
    "mask": "the predicted mask agrees with the true one as well as the plan asks",
    "other": "the prediction is as good as the plan asks",
}


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """The mean error of one defence, without attack and in the worst case at the largest budget of a family."""

    model: str
    family: str
    threat: str
    goal: str
    defense: str
    title: str
    clean: Estimate
    attacked: Estimate


def error_rows(study: Study, numbers: Numbers) -> tuple[ErrorRow, ...]:
    """Return one row for each model, threat family and defence that was attacked; none for classifiers."""
    rows = [
        _row(study, numbers, model, family, defense)
        for model in study.models
        for family in study.families
        for defense in study.defenses
        if study.graded
    ]
    return tuple(row for row in rows if row.attacked.mean is not None)


def _row(study: Study, numbers: Numbers, model: str, family: str, defense: str) -> ErrorRow:
    threat = study.largest(family)
    return ErrorRow(
        model=model,
        family=family,
        threat=threat.label,
        goal=goal_words(threat.goal, study),
        defense=defense,
        title=study.defense_title(defense),
        clean=numbers.clean(model, defense, "clean_error"),
        attacked=numbers.worst(model, defense, threat.label, "adversarial_error"),
    )


def error_name(study: Study) -> str:
    """Return what the error is, with its unit: `absolute error, months`."""
    unit = f", {study.output_unit}" if study.output_unit else " per row" if study.output == "labels" else ""
    return _ERROR[study.output] + unit


def right_words(study: Study) -> str:
    """Say when a row counts as right."""
    if study.output == "value" and study.tolerance is not None:
        return f"the predicted value is off by at most {study.tolerance:g} {study.output_unit}".strip()
    return _RIGHT[study.output] if study.graded else "the model names the true class"
