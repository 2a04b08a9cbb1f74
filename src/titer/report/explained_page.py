"""What the page shows of explanations: sentences, a figure, tables, pictures of flipped inputs, and the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from titer.report import figures
from titer.report import saliency_pictures as draw
from titer.report.explained_samples import Sample, samples
from titer.report.feature_maps import feature_map
from titer.report.figures import Row
from titer.report.format import NBSP, UNKNOWN, known, number, percent
from titer.report.load import RunFolder
from titer.report.marks import Figure
from titer.report.numbers import Estimate
from titer.report.study import Study
from titer.report.tables import Table
from titer.report.wording import estimate, estimate_ci

if TYPE_CHECKING:
    from titer.report.explained import Case, Moved

_FEW_PATIENTS = 30
_ASKED_ANEW = ("classes", "mask")
"""Outputs whose new decision is another class; a finding and a value have one score, whatever is decided."""


def page_of(cases: Sequence[Case], run: RunFolder, study: Study) -> dict[str, Any]:
    """Return the variables of the section."""
    found = samples(run, study, [(case.model, case.defense, case.family) for case in cases])
    shown = [_shown(case, kept, run, study) for case, kept in zip(cases, found, strict=True)]
    return {"cases": shown, "scale": draw.scale() if study.kind == "image" else "", "image": study.kind == "image"}


def _shown(case: Case, kept: Sequence[Sample], run: RunFolder, study: Study) -> dict[str, Any]:
    return {
        "heading": _heading(case, study),
        "counted": _counted(case, study),
        "statement": _statement(case.moved[0], study) if case.moved else "",
        "question": _question(case.moved[0], study) if case.moved and study.output in _ASKED_ANEW else "",
        "notes": _notes(case, study),
        "figure": _figure(case) if case.moved else None,
        "overlap": _overlap_table(case, study) if case.moved else None,
        "more": [one for one in (_cosine_table(case), _inside_table(case)) if one is not None],
        "samples": kept,
        "map": _map(case, run, study),
        "alike": _alike(case, study),
        "left_out": case.left_out,
    }


def _heading(case: Case, study: Study) -> str:
    who = f"{case.model} · " if len(study.models) > 1 else ""
    return who + " · ".join(one for one in (case.title, case.attack, case.threat) if one)


def _counted(case: Case, study: Study) -> str:
    if not case.trials:
        return ""
    many = study.subject[1]
    over = f" in {case.trials} trials" if case.trials > 1 else ""
    rows = sorted({one.rows for one in case.moved})
    many_rows = " to ".join(map(str, dict.fromkeys((rows[0], rows[-1])))) if rows else ""
    told = " All were explained." if rows[:1] == [case.flipped] else f" {many_rows} were explained, picked at random."
    return (
        f"Of {case.studied} {many}{over}, {case.attacked} were open to attack: right without it, and not proven safe. "
        f"The decision on {case.flipped} was flipped.{told if rows else ''}"
    )


def _statement(first: Moved, study: Study) -> str:
    """Say how far the first explainer's answer moved, beside its answer to noise, and to another question."""
    what = "image" if study.kind == "image" else "record"
    clearly = first.excess.low is not None and first.excess.low > 0
    verdict = "The attack moved" if clearly else "It is not shown that the attack moved"
    return (
        f"{first.title}: the tenth of the {what} that weighs most for the decision before keeps "
        f"{estimate_ci(first.overlap_first)} of its places under attack, and {estimate_ci(first.overlap_noise)} under "
        f"random noise of the same size. {verdict} the explanation more than noise does: the difference is "
        f"{_points(first.excess)}."
    )


def _question(first: Moved, study: Study) -> str:
    """Say how much of the change that a reader sees comes of asking for another decision."""
    what = "image" if study.kind == "image" else "record"
    return (
        f"Explained for its new decision, the attacked {what} shares {estimate_ci(first.overlap_new)} with the clean "
        f"one’s tenth. How much of that comes of the other question alone, the clean {what} tells: explained "
        f"for that decision without any attack, it shares {estimate_ci(first.overlap_other)}."
    )


def _notes(case: Case, study: Study) -> list[str]:
    if not case.moved:
        return []
    widest = max(case.moved, key=lambda one: one.rows)
    notes = []
    if widest.noise_won:
        notes.append(
            f"Noise of the same size flipped {widest.noise_won} of {widest.rows} {study.subject[1]} by itself."
        )
    if widest.noise_length is not None and widest.noise_length < 0.95:
        notes.append(
            f"The rules of the data left the noise {percent(widest.noise_length, 0)} of the length of the attack’s "
            "change on average, which makes the effect of the attack look a little larger than it is."
        )
    if any(one.overlap_new.low is None or one.overlap_first.low is None for one in case.moved):
        notes.append("No CI: every explained row gave the same value, or all are of one patient.")
    if min(one.patients for one in case.moved) < _FEW_PATIENTS:
        notes.append(f"Fewer than {_FEW_PATIENTS} patients: intervals are somewhat too narrow.")
    return notes


def _figure(case: Case) -> Figure:
    rows = [Row(one.title, at + 1, one.overlap_noise, one.overlap_first) for at, one in enumerate(case.moved)]
    caption = (
        "Overlap of the heaviest tenth with that of the clean input, both for the decision before: after noise of the "
        "same size (hollow) and after the attack (solid); bars: 95 % CI over patients. By chance it is 10 %."
    )
    name = f"explained {case.model} {case.defense} {case.family}"
    return figures.dumbbells(name, rows, "Overlap (%)", caption, "How far explanations move")


def _overlap_table(case: Case, study: Study) -> Table:
    rows = tuple(
        (
            one.title,
            f"{one.rows} ({one.patients})",
            *(estimate(value) for value in (one.overlap_first, one.overlap_noise)),
            _points(one.excess),
            *(estimate(value) for value in (one.overlap_new, one.overlap_other)),
        )
        for one in case.moved
    )
    headings = (
        "Explainer",
        f"{study.subject[1].capitalize()} (patients)" if study.subject[0] != "patient" else "Explained (patients)",
        "Decision before, attacked",
        "Decision before, noise",
        "Difference (noise less attack)",
        "New decision, attacked",
        "New decision, clean",
    )
    caption = "Overlap of the heaviest 10 % with the clean input’s, mean (95 % CI over patients)"
    return Table(caption, headings, rows)


def _cosine_table(case: Case) -> Table | None:
    rows = tuple(
        (
            one.title,
            *(_plain(value) for value in (one.cosine_first, one.cosine_noise, one.cosine_new, one.cosine_other)),
        )
        for one in case.moved
    )
    headings = (
        "Explainer",
        "Decision before, attacked",
        "Decision before, noise",
        "New decision, attacked",
        "New decision, clean",
    )
    caption = (
        "Cosine with the explanation of the clean input, mean (95 % CI over patients): 1 the same, 0 nothing in "
        "common, −1 the opposite. What speaks for one of two classes speaks against the other: −1 by the question alone"
    )
    return Table(caption, headings, rows) if rows else None


def _inside_table(case: Case) -> Table | None:
    rows = tuple(
        (one.title, *(estimate(v) for v in _shares_inside(one)))
        for one in case.moved
        if one.inside_clean.mean is not None
    )
    headings = (
        "Explainer",
        "Decision before, clean",
        "Decision before, attacked",
        "Decision before, noise",
        "New decision, attacked",
        "New decision, clean",
    )
    caption = "Share of all weight that lies inside the lesion, mean (95 % CI over patients)"
    return Table(caption, headings, rows) if rows else None


def _shares_inside(one: Moved) -> tuple[Estimate, ...]:
    return one.inside_clean, one.inside_first, one.inside_noise, one.inside_new, one.inside_other


def _map(case: Case, run: RunFolder, study: Study) -> Figure | None:
    rows = run.studies["explanation"].rows
    if case.features is None or rows.empty:
        return None
    mine = (rows["model"] == case.model) & (rows["defense"] == case.defense) & (rows["family"] == case.family)
    points = rows[mine & (rows["kind"] == "map")]
    caption = (
        f"Map (t-SNE) of the {case.features} features before the network’s last layer, first trial: {study.subject[1]} "
        "without attack (hollow) and attacked (solid; pale where the decision held), by true class. Only what lies "
        "close together means something; distances, sizes of groups and the axes do not."
    )
    names = _names(study, points["label"].max() if len(points) else 0)
    return feature_map(f"map {case.model} {case.defense} {case.family}", points, names, caption, "Feature space")


def _names(study: Study, largest: int) -> list[str]:
    """Name the labels of the outcomes: classes, or whether the goal's one finding is there."""
    names = list(study.classes) if not study.graded else ["absent", "present"] if largest else ["all"]
    return names + [f"class {index}" for index in range(len(names), int(largest) + 1)]


def _alike(case: Case, study: Study) -> str:
    """Say, off the features themselves, whose neighbours attacked rows have: distances on the map say nothing."""
    if case.alike_attacked.mean is None:
        return ""
    return (
        f"Measured in the feature space itself, of the 10 clean {study.subject[1]} nearest to an attacked one "
        f"{estimate_ci(case.alike_attacked)} are of its true class; before the attack it was "
        f"{estimate_ci(case.alike_clean)}."
    )


def _points(value: Estimate) -> str:
    """Write a difference of two shares: `+52.1 points (45.0 to 59.3)`."""
    if value.mean is None:
        return UNKNOWN
    low, high = (number(None if end is None else 100 * end, 1) for end in (value.low, value.high))
    bounds = f"{low}{NBSP}to{NBSP}{high}" if value.low is not None else f"no{NBSP}CI"
    return f"{number(100 * value.mean, 1)}{NBSP}points ({bounds})"


def _plain(value: Estimate) -> str:
    """Write a cosine with its interval; three digits, as many lie close to 1 or -1."""
    if not known(value.mean):
        return UNKNOWN
    if value.low is None or value.high is None:
        return f"{_cosine(value.mean)} (no{NBSP}CI)"
    return f"{_cosine(value.mean)} ({_cosine(value.low)}{NBSP}to{NBSP}{_cosine(value.high)})"


def _cosine(value: float | None) -> str:
    """Write a cosine, never rounded up to 1 or down to -1."""
    text = number(value, 3)
    if value is None or text not in ("1.000", "−1.000") or abs(value) > 1 - 1e-6:
        return text
    return f">{NBSP}0.999" if value > 0 else f"<{NBSP}−0.999"
