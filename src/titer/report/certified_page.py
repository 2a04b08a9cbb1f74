"""Certificates in words, a figure for each certifier, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from titer.report import wording
from titer.report.certified_figure import Line, certificate_curves
from titer.report.certified_rows import AtBudget, Certificate, Median, Refusal
from titer.report.format import NBSP, UNKNOWN, count, general, join, percent
from titer.report.goals import goal_words
from titer.report.load import ANY_ERROR
from titer.report.marks import Figure
from titer.report.study import Study, Threat
from titer.report.tables import Table, plain


def certified_page(found: Sequence[Certificate], refusals: Sequence[Refusal], study: Study) -> dict[str, Any]:
    """Return what the template shows: one part a model and threat family, and what was refused."""
    pairs = dict.fromkeys((one.model, one.family) for one in found)
    parts = [_part([one for one in found if (one.model, one.family) == pair], study) for pair in pairs]
    return {"parts": parts, "refused": refused(refusals) if refusals else None}


def _part(some: list[Certificate], study: Study) -> dict[str, Any]:
    first, threat = some[0], study.largest(some[0].family)
    proving = [one for one in some if one.proves]
    proved = {one.certifier for one in proving}
    certifiers = [name for name in dict.fromkeys(one.certifier for one in some) if name in proved]
    return {
        "heading": f"{first.model} · {first.family}" if len(study.models) > 1 else first.family,
        "goal": "" if threat.goal == ANY_ERROR else goal_words(threat.goal, study),
        "statements": statements(some, study),
        "figures": [_figure([one for one in proving if one.certifier == name], study) for name in certifiers],
        "notes": [*_nothing([one for one in some if not one.proves]), *_sampled(proving)],
        "table": shares_table(proving, threat, study) if proving else None,
        "costs": costs_table(some, threat, study),
    }


def statements(some: Sequence[Certificate], study: Study) -> list[str]:
    """Say the most that is proven of a model that was attacked, and the most that sampling certifies."""
    proofs = [one for one in some if one.about == "model"]
    sampled = [one for one in some if one.about != "model"]
    told = [_statement(group, study) for group in (proofs, sampled) if any(one.proves for one in group)]
    if told:
        return told
    return [
        "No certifier proves anything here. That does not show that attacks would succeed: the bounds may be too loose "
        "for these models. Nothing beyond what attacks showed is known."
    ]


def _statement(group: Sequence[Certificate], study: Study) -> str:
    one, at = _most(group)
    threat = study.threat(at.threat)
    assert threat is not None
    who = f"{wording.lower_first(one.defense_title)}, by {_by(one)}"
    change = wording.change_words(threat, study.kind)
    estimate = wording.estimate_ci(at.proven)
    many = study.subject[1] if one.goal == ANY_ERROR else f"{study.subject[1]} that the goal is about"
    if one.about != "model":
        sure = f"each with a confidence of {percent(one.confidence)}"
        return (
            f"By sampling, most is certified for {who}: against {change}, {estimate} of {many} are certified, {sure}. "
            + _of_what(one)
        )
    if at.proven.mean == 0:
        reach = f"None of the {many} are proven safe against {change}"
        return f"{reach}; the proofs that there are hold for smaller changes only. Most is proven for {who}."
    return (
        f"Most is proven for {who}: against {change}, {estimate} of {many} are safe whatever an attacker tries. "
        f"{_rest(at)}"
    )


def _by(one: Certificate) -> str:
    """Name the certifier, by its label where the title is the defence's own."""
    return one.certifier if one.title == one.defense_title else wording.lower_first(one.title)


def _of_what(one: Certificate) -> str:
    if one.about == "smoothed":
        return (
            "The certificate is of the answer that the model would give most often over very many draws; it runs with "
            "few, and only comes near to that."
        )
    return (
        "The certificate is of another model than the one attacked: the class that the network gives most often under "
        "noise. It says nothing about the network’s own answer."
    )


def _rest(at: AtBudget) -> str:
    if at.neither.mean is None or at.withstood.mean is None:
        return "No attack of the run met these rows."
    return (
        f"{percent(at.neither.mean)} more were not broken by our attacks and are not proven either: nobody knows. "
        f"The other {percent(1 - at.withstood.mean)} are wrong, or were broken."
    )


def _most(group: Sequence[Certificate]) -> tuple[Certificate, AtBudget]:
    """Return the largest budget at which anything is proven, and the entry that proves most there."""
    for index in reversed(range(len(group[0].budgets))):
        best = max(group, key=lambda one: one.budgets[index].proven.mean or 0.0)
        if best.budgets[index].proven.mean:
            return best, best.budgets[index]
    best = max(group, key=lambda one: one.reach)
    return best, best.budgets[0]


def _figure(some: Sequence[Certificate], study: Study) -> Figure:
    one, threat = some[0], study.largest(some[0].family)
    lines = [
        Line(
            name=each.defense_title,
            style=study.defenses.index(each.defense),
            curve=each.curve,
            points=() if each.about == "another" else tuple((at.eps, at.withstood) for at in each.budgets),
        )
        for each in some
    ]
    many = study.subject[1]
    verb = "proves safe" if one.about == "model" else f"certifies ({percent(one.confidence)} confidence each)"
    caption = f"Line: share of {many} that {one.certifier} {verb} within each radius (shaded: 95{NBSP}% CI). "
    if any(line.points for line in lines):
        caption += (
            f"Points: share not broken by our attacks at the plan’s budgets, same {many} (bars: 95{NBSP}% CI). "
            "The thin line between is what is neither proven nor broken."
        )
    else:
        caption += "No points: the attacks met another model than the one that is certified."
    title = f"{one.model}. {_title(one)}" if len(study.models) > 1 else _title(one)
    axes = (f"Radius or budget, {wording.unit_words(threat.unit)}", f"Safe (% of {many})")
    return certificate_curves(f"certified {one.model} {one.family} {one.certifier}", lines, *axes, caption, title)


def _title(one: Certificate) -> str:
    """Return the certifier's title, with what its label says besides: settings, or words of the user's own."""
    _, bracket, settings = one.certifier.partition(" (")
    if bracket:
        return f"{one.title} ({settings}"
    return f"{one.title}: {one.certifier}" if " " in one.certifier else one.title


def _sampled(proving: Sequence[Certificate]) -> list[str]:
    """Say that a certificate by sampling is no proof."""
    names = dict.fromkeys(one.certifier for one in proving if one.about != "model")
    if not names:
        return []
    return [
        f"Certificates of {join(list(names))} rest on samples: they are no proof, but hold with the confidence given."
    ]


def _nothing(idle: Sequence[Certificate]) -> list[str]:
    """Say for whom a certifier ran and proved nothing at all."""
    if not idle:
        return []
    named = [f"{wording.lower_first(one.defense_title)} (by {one.certifier})" for one in idle]
    return [f"Not a single row was proven at any radius for {join(named)}: those bounds are too loose."]


def shares_table(some: Sequence[Certificate], threat: Threat, study: Study) -> Table:
    """Return what is proven, not broken, and neither, one row a defence, certifier and budget."""
    rows = [
        (
            one.defense_title,
            one.certifier,
            at.threat,
            wording.estimate(at.proven),
            *(
                ("another model", "another model")
                if one.about == "another"
                else (wording.estimate(at.withstood), wording.estimate(at.neither))
            ),
        )
        for one in some
        for at in one.budgets
    ]
    many = study.subject[1]
    who = many if threat.goal == ANY_ERROR else f"{many} that the goal is about"
    n = f"{some[0].rows} a trial, {some[0].trials} {'trial' if some[0].trials == 1 else 'trials'}"
    what = f"Proven, not broken by our attacks, and neither, under {threat.family}"
    caption = f"{what}: shares of the same {who} ({n}; 95 % CI)"
    headings = ("Defence", "Certifier", "Budget", "Proven", "Not broken by our attacks", "Neither proven nor broken")
    return plain(caption, headings, rows, 3)


def costs_table(some: Sequence[Certificate], threat: Threat, study: Study) -> Table:
    """Return what each certificate is of, how far it reaches, and what it costs."""
    rows = [
        (
            one.defense_title,
            one.certifier,
            about_words(one),
            radius_words(one.median_radius),
            wording.estimate(one.abstained) if one.about != "model" else "never",
            f"{general(one.cpu_seconds_per_row, 2)}{NBSP}s",
            count(one.samples_per_row) if one.samples_per_row is not None else UNKNOWN,
        )
        for one in some
    ]
    caption = (
        f"What the certificates under {threat.family} are of, how far they reach, and their cost. Radius: median over "
        f"the {study.subject[1]} that are right, in {wording.unit_words(threat.unit)}, looked for up to {threat.eps:g} "
        "(95 % CI). Time: mean over trials on one processor core; measured once a trial, so without an interval"
    )
    headings = (
        "Defence", "Certifier", "Certificate of", "Median radius", "No answer given", "CPU time a row", "Samples a row",
    )  # fmt: skip
    return plain(caption, headings, rows, 3)


def about_words(one: Certificate) -> str:
    """Say what a certificate is of."""
    if one.about == "model":
        return "the model itself; a proof"
    sure = f"{percent(one.confidence)} confidence each"
    if one.about == "smoothed":
        return f"the model’s answer over many draws; {sure}"
    return f"the network under noise, not the model as it runs; {sure}"


def radius_words(found: Median) -> str:
    """Write a median radius with its interval: `3.2 (2.9 to 3.6)`; one as long as was looked for is at least that."""
    if found.value is None or found.low is None or found.high is None:
        return f"{UNKNOWN} (no row is right)"
    ends = f"{general(found.low, 3)}{NBSP}to{NBSP}{general(found.high, 3)}"
    return f"{'≥' + NBSP if found.capped else ''}{general(found.value, 3)} ({ends})"


def refused(found: Sequence[Refusal]) -> Table:
    """Return what was not certified, and why."""
    rows = [
        (one.certifier, one.reason, ", ".join(one.defenses), ", ".join(one.families), str(one.parts)) for one in found
    ]
    return plain("Not certified, and why", ("Certifier", "Reason", "Defences", "Threats", "Cases"), rows, 4)
