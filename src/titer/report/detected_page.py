"""What the page shows of the detectors: a figure and a table for each defended model and threat, details to unfold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from titer.report import wording
from titer.report.detected import TOGETHER, Caught, Detected, Streamed, Watched
from titer.report.figures import Row, dumbbells
from titer.report.format import NBSP, UNKNOWN, count, general, join, number, of_hundred, percent
from titer.report.marks import Figure
from titer.report.numbers import NOTHING, Estimate
from titer.report.study import UNDEFENDED, WORST, Study
from titer.report.tables import Table, plain

_THOUSAND = 1000


def detected_context(found: Detected | None, study: Study) -> dict[str, Any] | None:
    """Return what the template shows, None where there is nothing."""
    if found is None:
        return None
    models = list(dict.fromkeys((one.model, one.defense) for one in found.watched))
    return {
        "parts": [_part(found, study, model, defense) for model, defense in models],
        "details": _details(found, study),
        "streams": _streams(found.streams, study) if found.streams else None,
        "skipped": found.skipped,
        "rate": percent(found.watched[0].rate) if found.watched else "",
        "allowed": count(_THOUSAND * found.watched[0].rate) if found.watched else "",
        "broken": any(one.holds is False for one in found.watched),
    }


def first_page(found: Detected | None, study: Study) -> Iterator[str]:
    """Yield what the first page says of the detectors of each defended model, one sentence for each threat family."""
    for model, defense in dict.fromkeys((one.model, one.defense) for one in found.watched) if found else ():
        assert found is not None
        guard = _guard(found, model, defense)
        for family in study.families if guard is not None else ():
            assert guard is not None
            against = found.against(guard, study.largest(family).label)
            if against is not None and against.finds:
                yield _sentence(guard, against, study)


def _guard(found: Detected, model: str, defense: str) -> Watched | None:
    """Return all detectors together, or the only one."""
    able = [one for one in found.of(model, defense) if not one.reason]
    together = [one for one in able if one.detector == TOGETHER]
    return together[0] if together else able[0] if len(able) == 1 else None


def _sentence(guard: Watched, against: Caught, study: Study) -> str:
    who = "Together, the detectors" if guard.detector == TOGETHER else f"The detector “{guard.title}”"
    verb = "catch" if guard.detector == TOGETHER else "catches"
    caught = against.caught.get(f"{guard.rate:g}", NOTHING)
    them = "them" if verb == "catch" else "it"
    words = (
        f"{who} {_beside(study, guard)}{verb} {wording.estimate_ci(caught)} of the inputs that fool the model under "
        f"{against.threat} while the attacker does not know {them}{_price(guard, study)}."
    )
    if against.adaptive.mean is None:
        return f"{words} An attacker who knows {them} was not tried: do not count on this."
    return (
        f"{words} One who does gets {wording.estimate_ci(against.adaptive)} of the {study.subject[1]} past model and "
        f"detectors; without detectors it is {percent(against.success.mean)}."
    )


def _price(guard: Watched, study: Study) -> str:
    """Say what the catch was bought with where that is more than was stated: it flatters otherwise."""
    if guard.holds is not False:
        return ""
    stated = count(_THOUSAND * guard.rate)
    return f", at {_alarms(guard)} false alarms in 1000 clean {study.subject[1]} where {stated} were stated"


def _beside(study: Study, one: Watched) -> str:
    """Name the defended model where the reader could not know which."""
    parts = [one.model] if len(study.models) > 1 else []
    parts += [study.defense_title(one.defense)] if one.defense != UNDEFENDED else []
    return f"beside {', '.join(parts)} " if parts else ""


def _part(found: Detected, study: Study, model: str, defense: str) -> dict[str, Any]:
    watched = found.of(model, defense)
    parts = [model] if len(study.models) > 1 else []
    return {
        "title": " · ".join([*parts, study.defense_title(defense)]),
        "table": _clean_table(watched, study),
        "families": [one for family in study.families if (one := _family(found, study, watched, family)) is not None],
        "refused": [(one.title, one.reason) for one in watched if one.reason],
        "names": [(one.title, _looks_at(one, watched)) for one in watched if not one.reason],
    }


def _looks_at(one: Watched, watched: tuple[Watched, ...]) -> str:
    """Say in a few words what a detector looks at."""
    if one.detector != TOGETHER:
        return wording.lower_first(one.looks_at)
    names = {each.detector: each.title for each in watched}
    return join([wording.lower_first(names.get(label, label)) for label in one.of])


def _family(found: Detected, study: Study, watched: tuple[Watched, ...], family: str) -> dict[str, Any] | None:
    """Return figure and table of one family at its largest budget."""
    threat = study.largest(family).label
    rows = [(one, against) for one in watched if (against := found.against(one, threat)) is not None]
    if not rows:
        return None
    return {"threat": threat, "figure": _figure(rows, study, threat), "table": _table(rows, study, threat)}


def _figure(rows: list[tuple[Watched, Caught]], study: Study, threat: str) -> Figure:
    first = rows[0][0]
    bars = [Row("No detector", 0, rows[0][1].success, NOTHING)]
    bars += [Row(one.title, place, against.unnoticed, against.adaptive) for place, (one, against) in enumerate(rows, 1)]
    caption = (
        f"Wrong answers that get through without an alarm under {threat}: attacker does not know the detectors "
        "(hollow), and knows them (solid); bars: 95 % CI. A long line is a detector that protects only while it is "
        "secret. No detector: how often the attack succeeds where nobody watches."
    )
    name = f"detectors {first.model} {first.defense} {threat}"
    return dumbbells(name, bars, f"Through unnoticed (% of {study.subject[1]})", caption)


def _table(rows: list[tuple[Watched, Caught]], study: Study, threat: str) -> Table:
    rates = list(rows[0][1].caught)
    cells = [
        (
            one.title,
            _knowing(against),
            wording.estimate(against.unnoticed),
            *(wording.estimate(against.caught[rate]) for rate in reversed(rates)),
            _ranked(against.auroc),
        )
        for one, against in rows
    ]
    headings = (
        "Detector",
        "Gets through unnoticed, attacker knows it",
        "Gets through unnoticed, does not know it",
        *(f"Caught at {_rate(rate)} false alarms, does not know it" for rate in reversed(rates)),
        "AUROC, does not know it",
    )
    finds = rows[0][1].finds
    caption = (
        f"Detectors under {threat} (95 % CI). Gets through: of the {study.subject[1]} right when clean, by any attack; "
        f"without detectors {percent(rows[0][1].success.mean)}. Caught, AUROC: of {count(finds)} inputs that fooled "
        f"the model, all attacks and trials{_too_few(rows)}"
    )
    return plain(caption, headings, cells)


def _too_few(rows: list[tuple[Watched, Caught]]) -> str:
    """Say what a dash means where there is one."""
    missing = [rate for rate, value in rows[0][1].caught.items() if value.mean is None and rows[0][1].finds]
    return f". –: the validation part is too small for {join([_rate(one) for one in missing])}" if missing else ""


def _clean_table(watched: tuple[Watched, ...], study: Study) -> Table:
    """Return what the detectors do where nobody attacks: false alarms, and time."""
    cells = [
        (one.title, _alarms(one), _promise(one), _ratio(one.ratio))
        for one in watched
        if not one.reason
    ]  # fmt: skip
    rate = watched[0].rate if watched else 0.0
    caption = (
        f"Without attack: alarms in 1000 clean {study.subject[1]} of the test part (95 % CI), where thresholds were "
        f"set for {count(_THOUSAND * rate)}; time of model and detectors over that of the model alone, one input at a "
        "time"
    )
    return plain(caption, ("Detector", "False alarms in 1000", "Stated rate", "Time, with detectors"), cells)


def _alarms(one: Watched) -> str:
    """Write the false alarms in a thousand with their interval."""
    own = one.alarms.get(f"{one.rate:g}", NOTHING)
    if own.mean is None:
        return UNKNOWN
    ends = "no CI" if own.low is None or own.high is None else (
        f"{count(_THOUSAND * own.low)}{NBSP}to{NBSP}{count(_THOUSAND * own.high)}"
    )  # fmt: skip
    return f"{count(_THOUSAND * own.mean)} ({ends})"


def _promise(one: Watched) -> str:
    if one.holds is None:
        return "cannot be told"
    return "holds" if one.holds else "✕ more alarms than stated"


def _ratio(value: Estimate) -> str:
    if value.mean is None:
        return UNKNOWN
    ends = (
        f"{value.low:.2f}{NBSP}to{NBSP}{value.high:.2f}"
        if value.low is not None and value.high is not None
        else f"no{NBSP}CI"
    )
    return f"{value.mean:.2f}{NBSP}× ({ends})"


def _details(found: Detected, study: Study) -> Table:
    """Return every detector against every attack and budget."""
    titles = {(one.model, one.defense, one.detector): one for one in found.watched}
    several = len(study.models) > 1
    rows = []
    for one in (one for one in found.caught if one.attack != WORST):
        watched = titles[one.model, one.defense, one.detector]
        own = one.caught.get(f"{watched.rate:g}", NOTHING)
        names = (watched.title, *((one.model,) if several else ()), study.defense_title(one.defense))
        met = (study.attack_title(one.attack), one.threat, count(one.finds), wording.estimate(one.success))
        seen = (_ranked(one.auroc), wording.estimate(own), wording.estimate(one.unnoticed))
        rows.append((*names, *met, *seen, _knowing(one), wording.estimate(one.adaptive_caught)))
    headings = (
        "Detector", *(("Model",) if several else ()), "Defence", "Attack", "Threat", "Inputs that fooled",
        "Attack success, no detector", "AUROC", "Caught", "Through, does not know", "Through, knows",
        "Caught of what one who knows ends with",
    )  # fmt: skip
    caption = "Every detector, attack and budget (95 % CI), alarms at the stated rate"
    return plain(caption, headings, rows, 4 + several)


def _knowing(one: Caught) -> str:
    if one.adaptive.mean is None:
        return f"not tried: {one.reason}" if one.reason else "largest budget only"
    return wording.estimate(one.adaptive)


def _ranked(value: Estimate) -> str:
    """Write an AUROC, which is no share of anything."""
    if value.mean is None:
        return UNKNOWN
    ends = f"{number(value.low, 3)}{NBSP}to{NBSP}{number(value.high, 3)}" if value.low is not None else f"no{NBSP}CI"
    return f"{number(value.mean, 3)} ({ends})"


def _rate(rate: str) -> str:
    return f"{general(100 * float(rate))}{NBSP}%"


def _streams(rows: tuple[Streamed, ...], study: Study) -> Table:
    """Return what the detectors of streams saw."""
    several = len(study.models) > 1
    cells = [
        (
            one.title,
            *((one.model,) if several else ()),
            study.defense_title(one.defense),
            "none" if not one.share else f"{of_hundred(one.share)}{NBSP}%, {one.threat}",
            wording.estimate(one.raised),
            "; ".join("never" if first is None else f"after {first}" for first in one.first),
        )
        for one in rows
    ]
    headings = (
        "Detector", *(("Model",) if several else ()), "Defence", "Attacked in the stream", "Batches with an alarm",
        "First alarm, by trial",
    )  # fmt: skip
    caption = (
        f"Detectors of streams: batches of {rows[0].batch} clean and attacked {study.subject[1]}, {rows[0].looks} one "
        "after another (95 % CI over trials, none for one trial); batches are drawn from the same test rows"
    )
    return plain(caption, headings, cells, 3 + several)
