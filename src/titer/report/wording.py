"""The report's sentences: pure functions from numbers to words that a radiologist can read."""

from __future__ import annotations

from titer.report.format import NBSP, UNKNOWN, general, interval, join, of_hundred, percent
from titer.report.load import ANY_ERROR
from titer.report.numbers import Estimate
from titer.report.study import Threat

_UNITS = {
    "/255": ("grey level (of 255)", "grey levels (of 255)"),
    "grey levels": ("grey level", "grey levels"),
    "SD": ("standard deviation", "standard deviations"),
    "sd": ("standard deviation", "standard deviations"),
    "HU": ("Hounsfield unit", "Hounsfield units"),
    "bpm": ("beat per minute", "beats per minute"),
    "mV": ("millivolt", "millivolts"),
    "range": ("value range", "value ranges"),
}
_ACCESS = {
    "gradient": "an attacker who knows the model",
    "scores": "an attacker who sees only the model's output scores",
    "decision": "an attacker who sees only the model's decision",
}
_ACCESS_LONG = {
    "gradient": "knows the model and its weights (white box)",
    "scores": "sees only the output scores (black box)",
    "decision": "sees only the decision (black box)",
}
_MEANT = {
    "hide": "meant to hide “{}”",
    "invent": "meant to invent “{}”",
    "targeted": "meant to force the answer “{}”",
}
_NAMES = {
    "image": ("pixel", "pixels"),
    "table": ("measured value", "measured values"),
    "signal": ("sample", "samples"),
    "expression": ("gene", "genes"),
    "methylation": ("CpG site", "CpG sites"),
    "variants": ("site", "sites"),
    "text": ("word", "words"),
}


def size_words(eps: float, unit: str) -> str:
    """Spell a budget out: `8 grey levels (of 255)`."""
    one, many = _UNITS.get(unit, (unit or "input unit", unit or "input units"))
    return f"{eps:g} {one if eps == 1 else many}"


def unit_words(unit: str) -> str:
    """Spell a unit out, in the plural."""
    return _UNITS.get(unit, (unit, unit or "input units"))[1]


def threat_words(threat: Threat, kind: str) -> str:
    """Say what an attacker may change and what it is meant for, in a sentence that goes on."""
    return change_words(threat, kind) + _meant(threat.goal)


def change_words(threat: Threat, kind: str) -> str:
    """Say what an attacker may change: `changes of at most 8 grey levels (of 255) per pixel`."""
    one, many = _NAMES.get(kind, ("input value", "input values"))
    size = size_words(threat.eps, threat.unit)
    phrases = {
        "linf": f"changes of at most {size} per {one}",
        "l2": f"changes of overall size up to {size} (Euclidean length over all {many})",
        "l1": f"changes that add up to at most {size} over all {many}",
        "l0": f"changes to at most {counted(threat.eps, threat.unit, one, many)}",
    }
    return phrases.get(threat.norm, f"the changes that the threat “{threat.label}” allows")


def counted(eps: float, unit: str, one: str, many: str) -> str:
    """Spell out how many values may change: `3 words`, `5 % of the words`."""
    if unit.startswith("% of "):
        return f"{eps:g} % of the {many}"
    return f"{eps:g} {one if eps == 1 else many}"


def _meant(goal: str) -> str:
    """Say what the changes are meant for, between commas; nothing where any error will do."""
    kind, _, name = goal.partition(":")
    if kind == ANY_ERROR:
        return ""
    return f", {_MEANT[kind].format(name)}," if kind in _MEANT and name else f", aimed at “{goal}”,"


def access_words(access: str) -> str:
    """Say who the attacker is."""
    return _ACCESS.get(access, f"an attacker with {access or 'unstated'} access")


def access_long(access: str) -> str:
    """Say what the attacker sees, for a table."""
    return _ACCESS_LONG.get(access, access or "–")


def estimate(value: Estimate) -> str:
    """Write an estimate for a table: `15.2 % (12.1 to 18.4)`."""
    if value.mean is None:
        return "–"
    bounds = interval(value.low, value.high)
    return f"{percent(value.mean)} ({bounds if bounds != '–' else f'no{NBSP}CI'})"


def plain_estimate(value: Estimate) -> str:
    """Write an estimate that is no share: `12.4 (11.0 to 13.9)`."""
    if value.mean is None:
        return UNKNOWN
    if value.low is None or value.high is None:
        return f"{general(value.mean, 3)} (no{NBSP}CI)"
    return f"{general(value.mean, 3)} ({general(value.low, 3)}{NBSP}to{NBSP}{general(value.high, 3)})"


def estimate_ci(value: Estimate) -> str:
    """Write an estimate for running text, its interval named."""
    if value.mean is None:
        return "an unknown share"
    bounds = interval(value.low, value.high)
    return f"{percent(value.mean)} ({f'95{NBSP}%{NBSP}CI {bounds}' if bounds != '–' else 'no interval available'})"


def lower_first(text: str) -> str:
    """Write a title inside a sentence; abbreviations such as `JPEG` keep their capitals."""
    return text if len(text) > 1 and text[1].isupper() else text[:1].lower() + text[1:]


def undefended_sentence(
    who: str, threat: Threat, kind: str, subjects: str, clean: Estimate, hit: Estimate, about: str = ""
) -> str:
    """Say what the attack does to the undefended model; `who` names the model, `about` the one finding judged."""
    right = f"right about “{about}” on" if about else "right on"
    start = f"Against {threat_words(threat, kind)} by {access_words(threat.access)}"
    if hit.mean is None:
        return f"{start}, no result is available for {who}."
    if clean.mean is None:
        return f"{start}, {who} is {right} {estimate_ci(hit)} of {subjects}; its accuracy without attack is unknown."
    return (
        f"{start}, {who} is {right} {estimate_ci(hit)} of {subjects}, instead of {estimate_ci(clean)} without attack."
    )


def stake_sentence(subjects: str, name: str, clean: Estimate, hit: Estimate, *, has: bool) -> str:
    """Say how those fare whom a goal about one class is about: those that have it, or all others."""
    before = f", instead of {percent(clean.mean)}" if clean.mean is not None else ""
    return f"Of the {subjects} {'with' if has else 'without'} “{name}” it is right on {estimate_ci(hit)}{before}."


def finding_sentence(subjects: str, name: str, clean: Estimate, hit: Estimate, *, hides: bool) -> str:
    """Say how often the one finding that a goal is about is missed where it is, or falsely reported where it is not.

    Both estimates are the shares that are wrong, of those who have the finding (`hides`) or of all others.
    """
    what, whom = ("missed", "with") if hides else ("falsely reported", "without")
    before = f", instead of {percent(clean.mean)} without attack" if clean.mean is not None else ""
    return f"“{name}” is {what} in {estimate_ci(hit)} of the {subjects} {whom} it{before}."


def error_sentence(name: str, clean: Estimate, hit: Estimate) -> str:
    """Say how large the mean error gets under attack."""
    before = f", instead of {plain_estimate(clean)} without attack" if clean.mean is not None else ""
    return f"The mean error ({name}) is {plain_estimate(hit)} under attack{before}."


def best_sentence(title: str, marked: bool, kept: Estimate, clean: Estimate) -> str:
    """Say what the best trustworthy defence holds; without a mark no gain is claimed."""
    without = f" ({percent(clean.mean)} without attack)" if clean.mean is not None else ""
    name = lower_first(title)
    if marked:
        return f"The best defence that passed every check, {name}, holds {estimate_ci(kept)}{without}."
    return (
        f"No defence is shown to help: the highest that passed every check, {name}, holds {estimate_ci(kept)}{without},"
        " and the evidence for a gain is not sufficient (see Defences)."
    )


def distrust_sentence(title: str, value: Estimate, failed: int) -> str:
    """Say that the number of a defence with failed checks is not to be trusted."""
    checks = "1 check" if failed == 1 else f"{failed} checks"
    measured = f"The {percent(value.mean)} measured" if value.mean is not None else "Any number shown"
    return f"{measured} for {lower_first(title)} is not to be trusted: robustness overestimated ({checks} failed)."


def missed_sentence(subjects: str, name: str, clean: float | None, hit: float | None) -> str:
    """Say the false-negative rates as natural frequencies."""
    if clean is None or hit is None:
        return f"How many {subjects} with “{name}” are missed is not known."
    return (
        f"Of 100 {subjects} with the finding “{name}”, {of_hundred(clean)} {_be(clean)} missed without attack "
        f"and {of_hundred(hit)} under attack."
    )


def alarm_sentence(subjects: str, name: str, clean: float | None, hit: float | None) -> str:
    """Say the false-positive rates as natural frequencies."""
    if clean is None or hit is None:
        return f"How many {subjects} without “{name}” are falsely called is not known."
    return (
        f"Of 100 {subjects} without that finding, {of_hundred(clean)} {_be(clean)} wrongly called “{name}” without "
        f"attack and {of_hundred(hit)} under attack."
    )


def macro_missed(subjects: str, clean: float | None, hit: float | None) -> str:
    """Say the macro-averaged false-negative rate of several classes."""
    if clean is None or hit is None:
        return "How often the true class is missed is not known."
    return (
        f"Averaged over the classes, of 100 {subjects} of a class, {of_hundred(clean)} {_be(clean)} assigned to "
        f"another class without attack and {of_hundred(hit)} under attack."
    )


def macro_alarm(subjects: str, clean: float | None, hit: float | None) -> str:
    """Say the macro-averaged false-positive rate of several classes."""
    if clean is None or hit is None:
        return "How often a class is wrongly assigned is not known."
    return (
        f"Averaged over the classes, of 100 {subjects} of other classes, {of_hundred(clean)} {_be(clean)} wrongly "
        f"assigned to a class without attack and {of_hundred(hit)} under attack."
    )


def more_missed_sentence(title: str, name: str, without: tuple[float, float], attacked: tuple[float, float]) -> str:
    """Say that a defence misses more findings than the undefended model; each pair is (undefended, defended) rates."""
    finding = f"findings “{name}”" if name else "cases of the average class"
    when = []
    for words, (base, defended) in (("without attack", without), ("under attack", attacked)):
        if defended > base:
            when.append(f"{of_hundred(defended)} of 100 {words} (undefended: {of_hundred(base)})")
    return f"Accuracy hides a cost: with {lower_first(title)} the model misses more {finding}: {join(when)}."


def sentence(text: str) -> str:
    """Write a message as a sentence: a capital first, a full stop last."""
    clean = text.strip()
    return clean[:1].upper() + clean[1:] + ("" if clean[-1:] in ".!?" else ".") if clean else ""


def _be(share: float) -> str:
    return "is" if of_hundred(share) in ("1", "fewer than 1") else "are"
