"""The attacker's goals in clinical words, and what they do to sensitivity and specificity."""

from __future__ import annotations

from dataclasses import dataclass, replace

from titer.report.before import stated
from titer.report.load import ANY_ERROR
from titer.report.numbers import NOTHING, Estimate, Numbers
from titer.report.study import Study, Threat
from titer.report.tallies import Tallies, pick

_PLAIN = {
    "classes": "any error: a wrong answer of whatever kind",
    "labels": "any error: a finding hidden or invented, whichever",
    "value": "any error: a value beyond the tolerance",
    "mask": "any error: a mask that misses the true one",
    "other": "any error",
}
_ARROW = "\N{RIGHTWARDS ARROW}"


def goal_words(goal: str, study: Study) -> str:
    """Say what the attacker wants: `hide a finding: malignant → benign`; a goal of another kind by its own name."""
    kind, _, name = goal.partition(":")
    if kind in (ANY_ERROR, "untargeted", ""):
        return _PLAIN[study.output]
    if study.graded and kind in ("hide", "invent"):
        before, after = ("present", "absent") if kind == "hide" else ("absent", "present")
        return f"{kind} a finding: {name} {before} {_ARROW} {after}"
    present, absent = (f"{name} present", f"{name} absent") if study.graded else (name, _other(study, name))
    if kind == "hide":
        return f"hide a finding: {present} {_ARROW} {absent}"
    if kind == "invent":
        return f"invent a finding: {absent} {_ARROW} {present}"
    if kind == "targeted":
        return f"force one answer: {absent} {_ARROW} {present}"
    return f"{kind.replace('-', ' ')}: {name}" if name else kind.replace("-", " ")


def _other(study: Study, name: str) -> str:
    rest = [one for one in study.classes if one != name]
    return rest[0] if len(rest) == 1 else "any other answer"


def goal_class(goal: str, study: Study) -> int | None:
    """Return the class, or the finding of several, that a goal is about; None where it is about none."""
    kind, _, name = goal.partition(":")
    told = study.output in ("classes", "labels")
    named = told and kind in ("hide", "invent", "targeted") and name in study.classes
    return study.classes.index(name) if named else None


def at_stake(study: Study, tallies: Tallies, model: str, defense: str, threat: Threat) -> tuple[Estimate, Estimate]:
    """Return what is right without attack, and in the worst case, of the rows that a goal about a class is about.

    To hide a class is about the rows that have it, to invent or force one about all others. Nothing is returned for
    other goals.
    """
    aim = goal_class(threat.goal, study)
    if aim is None:
        return NOTHING, NOTHING
    found, cleared = _clean_rates(study, tallies, aim, model, defense, threat)
    held = tallies.held(model, defense, threat.label)
    return (found if threat.goal.startswith("hide") else cleared), held


@dataclass(frozen=True, slots=True)
class Rates:
    """Sensitivity and specificity before attack and in the worst case; `about` is the class, if it is one."""

    about: str
    sensitivity_clean: Estimate
    sensitivity_attacked: Estimate
    specificity_clean: Estimate
    specificity_attacked: Estimate


def rates(study: Study, numbers: Numbers, tallies: Tallies, model: str, defense: str, threat: Threat) -> Rates:
    """Return the rates under the threat's goal: of the class that it is about, of the positive one, or averaged."""
    aim = goal_class(threat.goal, study)
    if aim is not None and study.positive is None:
        counted = _of_class(study, tallies, aim, model, defense, threat)
        return _as_measured(counted, numbers, model, defense, threat) if study.output == "labels" else counted
    names = ("sensitivity", "specificity")
    before, after = (
        [numbers.clean(model, defense, name) for name in names],
        [numbers.worst(model, defense, threat.label, name) for name in names],
    )
    return Rates(study.positive_name, before[0], after[0], before[1], after[1])


def _of_class(study: Study, tallies: Tallies, aim: int, model: str, defense: str, threat: Threat) -> Rates:
    """Set one class against all others. Rows on which the goal makes no sense are not attacked: their rate stays."""
    found, cleared = _clean_rates(study, tallies, aim, model, defense, threat)
    held = tallies.held(model, defense, threat.label)
    hides = threat.goal.startswith("hide")
    after = (NOTHING, NOTHING) if held.mean is None else (held, cleared) if hides else (found, held)
    return Rates(study.classes[aim], found, after[0], cleared, after[1])


def _as_measured(counted: Rates, numbers: Numbers, model: str, defense: str, threat: Threat) -> Rates:
    """Take the rates under attack off the metrics, which have those of the goal's one finding; without attack none."""
    found, cleared = (numbers.worst(model, defense, threat.label, name).mean for name in ("sensitivity", "specificity"))
    return replace(
        counted,
        sensitivity_attacked=stated(found, counted.sensitivity_attacked),
        specificity_attacked=stated(cleared, counted.specificity_attacked),
    )


def _clean_rates(
    study: Study, tallies: Tallies, aim: int, model: str, defense: str, threat: Threat
) -> tuple[Estimate, Estimate]:
    """Return sensitivity and specificity without attack: for one class against all others, or for one finding."""
    if study.output == "labels":
        return _of_finding(tallies, model, defense, threat)
    clean = tallies.clean[pick(tallies.clean, {"model": model, "defense": defense})]
    ill = (clean["label"] == aim).to_numpy()
    named = (clean["clean_prediction"] == aim).to_numpy()
    return tallies.rate(clean[ill].assign(hit=named[ill])), tallies.rate(clean[~ill].assign(hit=~named[~ill]))


def _of_finding(tallies: Tallies, model: str, defense: str, threat: Threat) -> tuple[Estimate, Estimate]:
    """Return both rates of the goal's finding off the attacked rows: the clean ones are about all findings at once."""
    wanted = {"model": model, "defense": defense, "source": defense, "threat": threat.label}
    rows = tallies.unions[pick(tallies.unions, wanted)]
    eligible = rows["eligible"].to_numpy(dtype=bool)
    ill = eligible if threat.goal.startswith("hide") else ~eligible
    right = rows.assign(hit=rows["right"].to_numpy(dtype=bool))
    return tallies.rate(right[ill]), tallies.rate(right[~ill])
