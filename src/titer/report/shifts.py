"""How an attack shifts sensitivity and specificity, in sentences and in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from titer.report import wording
from titer.report.numbers import Estimate, Numbers
from titer.report.study import Study


@dataclass(frozen=True, slots=True)
class Shift:
    """Error rates of one defence before attack and in the worst case at the largest budget of a family.

    Attributes:
        model: the base model.
        family: the threat family.
        threat: label of the threat.
        defense: label of the defence; `title` is its name.
        title: its name in words.
        sensitivity_clean: share of positives found without attack; `fnr` is its complement.
        sensitivity_attacked: the same under attack.
        specificity_clean: share of negatives cleared without attack; `fpr` is its complement.
        specificity_attacked: the same under attack.
        missed: the sentence on missed findings.
        alarms: the sentence on false alarms.
    """

    model: str
    family: str
    threat: str
    defense: str
    title: str
    sensitivity_clean: Estimate
    sensitivity_attacked: Estimate
    specificity_clean: Estimate
    specificity_attacked: Estimate
    missed: str
    alarms: str


def shifts(study: Study, numbers: Numbers) -> tuple[Shift, ...]:
    """Return one row for each model, threat family and defence that was attacked."""
    rows = [
        _shift(study, numbers, model, family, defense)
        for model in study.models
        for family in study.families
        for defense in study.defenses
    ]
    return tuple(
        row for row in rows if row.sensitivity_attacked.mean is not None or row.specificity_attacked.mean is not None
    )


def _shift(study: Study, numbers: Numbers, model: str, family: str, defense: str) -> Shift:
    threat = study.largest(family).label
    fnr = (numbers.clean(model, defense, "fnr").mean, numbers.worst(model, defense, threat, "fnr").mean)
    fpr = (numbers.clean(model, defense, "fpr").mean, numbers.worst(model, defense, threat, "fpr").mean)
    many = study.subject[1]
    if study.positive is not None:
        missed = wording.missed_sentence(many, study.positive_name, *fnr)
        alarms = wording.alarm_sentence(many, study.positive_name, *fpr)
    else:
        missed, alarms = wording.macro_missed(many, *fnr), wording.macro_alarm(many, *fpr)
    return Shift(
        model=model,
        family=family,
        threat=threat,
        defense=defense,
        title=study.defense_title(defense),
        sensitivity_clean=numbers.clean(model, defense, "sensitivity"),
        sensitivity_attacked=numbers.worst(model, defense, threat, "sensitivity"),
        specificity_clean=numbers.clean(model, defense, "specificity"),
        specificity_attacked=numbers.worst(model, defense, threat, "specificity"),
        missed=missed,
        alarms=alarms,
    )
