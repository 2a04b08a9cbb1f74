"""Poisoned trainings in words, damage curves, tables, and rows that were changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from titer.report import wording
from titer.report.figures import Series, curves
from titer.report.format import NBSP, count, join, number, percent, points
from titer.report.marks import Figure
from titer.report.pictures import picture, to_planes
from titer.report.poisoned import PoisonedNumbers
from titer.report.poisoned_rows import AtShare, Cleaning, Poison
from titer.report.study import UNDEFENDED, Study
from titer.report.tables import Table, plain

_ENOUGH = 0.8
_NOTICED = 0.01


def poisoned_context(found: PoisonedNumbers | None, study: Study, folder: Path) -> dict[str, Any] | None:
    """Return what the template shows, None where the plan did not ask."""
    if found is None:
        return None
    pairs = dict.fromkeys((one.model, one.defense) for one in found.poisons)
    parts = [_part([one for one in found.poisons if (one.model, one.defense) == pair], study) for pair in pairs]
    return {
        "parts": parts,
        "removed": percent(found.removed),
        "kinds": _kinds(found.poisons) if found.poisons else None,
        "refused": plain("Not tried, and why", ("Poison", "Model", "Reason"), found.refusals, 3)
        if found.refusals
        else None,
        "examples": [one for label, path in found.examples if (one := _example(folder / path, label, study))],
    }


def first_page(found: PoisonedNumbers | None, study: Study) -> Iterator[str]:
    """Yield what the first page says: one sentence for each poison that succeeds, at the smallest share that does."""
    for one in found.poisons if found is not None else ():
        at = one.cheapest
        if at is not None:
            yield _sentence(one, at, study)


def _sentence(one: Poison, at: AtShare, study: Study) -> str:
    who = "the undefended model" if one.defense == UNDEFENDED else wording.lower_first(study.defense_title(one.defense))
    if len(study.models) > 1:
        who += f" ({one.model})"
    return (
        f"Poisoned training data: with {_share_words(at)} poisoned by “{one.label}”, {who} answers “{one.target}” to "
        f"{wording.estimate_ci(at.success)} of {_inputs(one, study)}; trained on untouched rows, to "
        f"{percent(one.success.mean)}. {_unseen(at)} {_searched(at)}"
    )


def _share_words(at: AtShare) -> str:
    return f"{percent(at.share)} of the training rows ({count(at.changed)} of {count(at.rows)})"


def _inputs(one: Poison, study: Study) -> str:
    many = study.subject[1]
    whose = f"{many} of class “{one.source}”" if one.source else f"{many} of other classes"
    return {
        "trigger": f"{whose} with the trigger on the input",
        "aimed": f"the {count(one.inputs)} inputs a trial that the attacker chose",
    }.get(one.aim, whose)


def _unseen(at: AtShare) -> str:
    """Say what accuracy without attack it costs: what testing on clean rows would notice."""
    if at.lost is None:
        return ""
    lost = f"{number(100 * at.lost, 1)}{NBSP}points of accuracy" if at.lost >= _NOTICED / 20 else "no accuracy"
    unseen = ": a test on clean rows does not show it" if at.lost < _NOTICED else ""
    return f"It costs {lost} without attack{unseen}."


def _searched(at: AtShare) -> str:
    best = at.best
    if best is None:
        return "No search for the poisoned rows was tried."
    found = f"{wording.estimate_ci(best.found)} of the poisoned rows at 5{NBSP}% false alarms"
    judged = {True: "", False: ": too few to rely on"}[(best.found.mean or 0.0) >= _ENOUGH]
    return f"The search that finds most, {wording.lower_first(best.title)}, finds {found}{judged}."


def _part(some: list[Poison], study: Study) -> dict[str, Any]:
    first = some[0]
    title = study.defense_title(first.defense)
    return {
        "heading": f"{first.model} · {title}" if len(study.models) > 1 else title,
        "statements": _statements(some),
        "figures": _figures(some, study),
        "damage": _damage(some, study),
        "searches": _searches(some, study),
    }


def _statements(some: Sequence[Poison]) -> list[str]:
    """Say which poisons succeed, from which share on, and which never do."""
    won = [f"“{one.label}” from {percent(at.share)}" for one in some if (at := one.cheapest) is not None]
    lost = [f"“{one.label}”" for one in some if one.aim != "any" and one.cheapest is None]
    said = [f"The attacker gets what they want with {join(won)} of the training rows poisoned."] if won else []
    if lost:
        most = percent(max(at.share for one in some for at in one.shares))
        said.append(f"With up to {most} poisoned, {join(lost)} {'does' if len(lost) == 1 else 'do'} not get there.")
    return said


def _figures(some: Sequence[Poison], study: Study) -> list[Figure]:
    """Return the damage curves: what the attacker gets, and what is left without attack, against the poisoned share."""
    first, axis = some[0], "Poisoned (% of the training rows)"
    wanted = [one for one in some if one.success.mean is not None]
    many = study.subject[1]
    drawn = []
    if wanted:
        caption = (
            "How often the attacker gets the answer that they want, against the poisoned share; at 0: of the model "
            f"trained on untouched rows (shaded: 95{NBSP}% CI)."
        )
        series = [
            Series(one.label, place, ((0.0, one.success), *((100 * at.share, at.success) for at in one.shares)))
            for place, one in enumerate(some)
            if one in wanted
        ]
        name = f"poison success {first.model} {first.defense}"
        drawn.append(curves(name, series, axis, "Attacker succeeds (% of inputs)", caption, "At the largest share"))
    caption = f"Accuracy without attack, against the poisoned share (shaded: 95{NBSP}% CI)."
    series = [
        Series(one.label, place, ((0.0, one.clean), *((100 * at.share, at.clean) for at in one.shares)))
        for place, one in enumerate(some)
    ]
    name = f"poison damage {first.model} {first.defense}"
    return [*drawn, curves(name, series, axis, f"Right without attack (% of {many})", caption, "At the largest share")]


def _damage(some: Sequence[Poison], study: Study) -> Table:
    rows = [
        (
            one.label,
            f"{percent(at.share)} ({count(at.changed)})",
            wording.estimate(at.clean),
            points(None if at.lost is None else -at.lost),
            wording.estimate(at.attacked),
            wording.estimate(one.success),
            wording.estimate(at.success),
        )
        for one in some
        for at in one.shares
    ]
    caption = (
        f"What each poison does: mean over {some[0].trials} {'trial' if some[0].trials == 1 else 'trials'} (95 % CI). "
        f"Accuracy without poison: {wording.estimate(some[0].clean)} of {study.subject[1]}"
    )
    headings = (
        "Poison", "Poisoned share (rows)", "Accuracy without attack", "Change by the poison",
        "Accuracy on the attacked class", "Wanted answer, untouched training", "Wanted answer, poisoned training",
    )  # fmt: skip
    return plain(caption, headings, rows, 2)


def _searches(some: Sequence[Poison], study: Study) -> Table | None:
    rows = [
        (one.label, percent(at.share), each.title, *_search_cells(each))
        for one in some
        for at in one.shares
        for each in at.cleanings
    ]
    caption = (
        "Searches for the poisoned rows, and the model trained again without the most suspicious ones. Found: share of "
        "the poisoned rows that score above 95 % of the untouched ones, a threshold that nobody knows who cleans; left "
        f"out: of the poisoned rows, by the cleaning. Accuracy over {study.subject[1]} (95 % CI)"
    )
    headings = (
        "Poison", "Poisoned share", "Search", "Found at 5 % false alarms", "AUROC", "Poisoned rows left out",
        "Accuracy after", "Wanted answer after",
    )  # fmt: skip
    return plain(caption, headings, rows, 3) if rows else None


def _search_cells(one: Cleaning) -> tuple[str, ...]:
    if one.refused:
        return (f"not possible: {one.refused}", *("–",) * 4)
    return (
        wording.estimate(one.found),
        number(one.auroc.mean),
        wording.estimate(one.caught),
        wording.estimate(one.clean),
        wording.estimate(one.success),
    )


def _kinds(some: Sequence[Poison]) -> Table:
    rows = {one.label: (one.label, one.title, _aim(one), one.settings, one.paper, ", ".join(one.ids)) for one in some}
    headings = ("Poison", "What it is", "The attacker wants", "Settings", "Paper", "NIST AI 100-2e2025, MITRE ATLAS")
    return plain("Poisons that were tried", headings, rows.values(), 6)


def _aim(one: Poison) -> str:
    whom = f"inputs of “{one.source}”" if one.source else "inputs of other classes"
    if one.aim == "any":
        return "any error"
    return {
        "trigger": f"“{one.target}” for {whom} with a trigger",
        "aimed": f"“{one.target}” for a few chosen inputs",
        "pair": f"“{one.target}” for {whom}",
    }[one.aim]


def _example(path: Path, label: str, study: Study) -> dict[str, Any] | None:
    """Return changed images before and after; None for rows that are no images."""
    if study.kind != "image" or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        before, after = stored["before"], stored["after"]
        names = [(str(a), str(b)) for a, b in zip(stored["label_before"], stored["label_after"], strict=True)]
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    pairs = [
        [(picture(to_planes(each, channels_first=True), low, high), words) for each, words in sides]
        for x, y, (old, new) in zip(before, after, names, strict=True)
        for sides in [((x, f"before: “{old}”"), (y, f"poisoned: “{new}”"))]
    ]
    return {"label": label, "pairs": pairs}
