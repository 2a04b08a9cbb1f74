"""How an attack shifts sensitivity and specificity, in sentences and in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from titer.report import wording
from titer.report.goals import goal_class, goal_words, rates
from titer.report.numbers import Estimate, Numbers
from titer.report.shares import complement
from titer.report.study import Study
from titer.report.tallies import Tallies


@dataclass(frozen=True, slots=True)
class Shift:
    """Error rates of one defence before attack and in the worst case at the largest budget of a family.

    Attributes:
        model: the base model.
        family: the threat family.
        threat: label of the threat.
        defense: label of the defence; `title` is its name.
        title: its name in words.
        goal: what the attacker wants, in clinical words.
        about: the class, or the finding, that the rates are about, empty where they are averages over the classes.
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
    goal: str
    about: str
    sensitivity_clean: Estimate
    sensitivity_attacked: Estimate
    specificity_clean: Estimate
    specificity_attacked: Estimate
    missed: str
    alarms: str


def shifts(study: Study, numbers: Numbers, tallies: Tallies) -> tuple[Shift, ...]:
    """Return one row for each model, threat family and defence that was attacked; none where there are no classes.

    Of several findings, only families whose goal is about one of them have rows: elsewhere there is no one finding
    to miss.
    """
    families = [one for one in study.families if not study.graded or _about_one(study, one)]
    rows = [
        _shift(study, numbers, tallies, model, family, defense)
        for model in study.models
        for family in families
        for defense in study.defenses
    ]
    return tuple(
        row for row in rows if row.sensitivity_attacked.mean is not None or row.specificity_attacked.mean is not None
    )


def _about_one(study: Study, family: str) -> bool:
    return goal_class(study.largest(family).goal, study) is not None


def _shift(study: Study, numbers: Numbers, tallies: Tallies, model: str, family: str, defense: str) -> Shift:
    threat = study.largest(family)
    found = rates(study, numbers, tallies, model, defense, threat)
    fnr = (complement(found.sensitivity_clean).mean, complement(found.sensitivity_attacked).mean)
    fpr = (complement(found.specificity_clean).mean, complement(found.specificity_attacked).mean)
    many = study.subject[1]
    if found.about:
        missed = wording.missed_sentence(many, found.about, *fnr)
        alarms = wording.alarm_sentence(many, found.about, *fpr)
    else:
        missed, alarms = wording.macro_missed(many, *fnr), wording.macro_alarm(many, *fpr)
    return Shift(
        model=model,
        family=family,
        threat=threat.label,
        defense=defense,
        title=study.defense_title(defense),
        goal=goal_words(threat.goal, study),
        about=found.about,
        sensitivity_clean=found.sensitivity_clean,
        sensitivity_attacked=found.sensitivity_attacked,
        specificity_clean=found.specificity_clean,
        specificity_attacked=found.specificity_attacked,
        missed=missed,
        alarms=alarms,
    )
