"""The report's plain tables: rows of text that the template only lays out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from titer.report import wording
from titer.report.before import before
from titer.report.findings import Findings
from titer.report.format import NBSP, count, duration, general, ratio
from titer.report.goals import goal_words
from titer.report.graded import ErrorRow, error_name
from titer.report.heatmap import letter
from titer.report.load import RunFolder
from titer.report.numbers import Estimate, Numbers
from titer.report.queries import QueryRow
from titer.report.skips import Gap
from titer.report.study import WORST, Study
from titer.report.subgroups import GroupRow
from titer.report.tallies import Tallies
from titer.report.transfers import TransferMatrix, source_name

_ACCESS = {"gradient": "white box", "scores": "output scores", "decision": "decision only"}


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, headings, and rows of text; the first column names its row. `numeric` columns are set right."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1


def accuracy(study: Study, numbers: Numbers, tallies: Tallies) -> Table:
    """Return accuracy and attack success of every defence, attack and budget, by an attacker who knows the defence."""
    rows = []
    for model in study.models:
        for defense in study.defenses:
            for ladder in study.families.values():
                for threat in ladder:
                    for attack in [*numbers.attacks(model, defense, threat.label), WORST]:
                        after = numbers.get(model, defense, attack, threat.label, "accuracy")
                        if after.mean is None:
                            continue
                        success = numbers.get(model, defense, attack, threat.label, "attack_success_rate")
                        clean = wording.estimate(before(numbers, tallies, model, defense, threat, attack))
                        names = (study.defense_title(defense), study.attack_title(attack), threat.label)
                        cells = (clean, wording.estimate(after), wording.estimate(success))
                        rows.append((*_prefix(study, model), *names, *cells))
    headings = ("Defence", "Attack", "Threat", "Accuracy without attack", "Accuracy under attack", "Attack success")
    return Table(
        "Accuracy before and after each attack by an attacker who knows the defence, mean (95 % CI)",
        (*_prefix(study, "Model"), *headings),
        tuple(rows),
        3 + len(_prefix(study, "")),
    )


def costs(study: Study, findings: Findings) -> Table:
    """Return what each defence costs, relative to the undefended model."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in findings.rows:
        cost = row.cost
        per_sample = f"{general(1000 * cost.inference, 3)} ms" if cost.inference is not None else "–"
        cells = (duration(cost.training), ratio(cost.training_ratio), per_sample, ratio(cost.inference_ratio))
        rows.setdefault((row.model, row.defense), (*_prefix(study, row.model), row.title, *cells))
    headings = ("Defence", "Training (CPU)", "relative", "Inference (CPU per sample)", "relative")
    caption = "Cost of each defence; relative: to the undefended model"
    return Table(caption, (*_prefix(study, "Model"), *headings), tuple(rows.values()), 1 + len(_prefix(study, "")))


def subgroups(study: Study, rows: Sequence[GroupRow]) -> Table:
    """Return the subgroup table; small ones are flagged in words, a defence that all rows share is in the caption."""
    rated = any(value.mean is not None for row in rows for value in (row.sensitivity_clean, row.sensitivity_robust))
    titles = {study.defense_title(row.defense) for row in rows}
    shared = f"{titles.pop()}: worst" if len(titles) == 1 else "Worst"
    found = tuple(
        (
            *_prefix(study, row.model),
            *((study.defense_title(row.defense),) if shared == "Worst" else ()),
            row.threat,
            "everybody" if row.group == "all" else f"{row.group.removeprefix('group:').replace('_', ' ')}: {row.value}",
            f"{general(row.n)} ⚑ few" if row.few else general(row.n),
            wording.estimate(row.clean),
            wording.estimate(row.robust),
            *((wording.estimate(row.sensitivity_clean), wording.estimate(row.sensitivity_robust)) if rated else ()),
        )
        for row in rows
    )
    first = ("Defence",) if shared == "Worst" else ()
    headings = (*first, "Threat", "Subgroup", "n per trial", "Accuracy without", "Accuracy under attack")
    more = ("Sensitivity without", "Sensitivity under attack") if rated else ()
    whose = "; sensitivity: of the finding that the goal is about" if rated and study.output == "labels" else ""
    return Table(
        f"{shared} case by subgroup, at the largest budget of each threat family; mean over trials "
        f"(Wilson 95 % interval for the rows of one trial){whose}",
        (*_prefix(study, "Model"), *headings, *more),
        found,
        2 + len(first) + len(_prefix(study, "")),
    )


def transfers(study: Study, matrices: Sequence[TransferMatrix]) -> tuple[Table, ...]:
    """Return each transfer matrix as a table: one row a source, one column a target, under the figure's letters."""
    found = []
    for one in matrices:
        headings = [f"{letter(index)} {study.defense_title(target)}" for index, target in enumerate(one.targets)]
        rows = [
            (source_name(study, source), *(_transferred(value, own=source == target) for target, value in cells))
            for source, values in zip(one.sources, one.success, strict=True)
            for cells in [list(zip(one.targets, values, strict=True))]
        ]
        model = f"{one.model}: " if len(study.models) > 1 else ""
        caption = f"{model}Attack success by the model that inputs were found on, under {one.threat} (95 % CI)"
        found.append(plain(caption, ("Found on", *headings), rows))
    return tuple(found)


def _transferred(value: Estimate, *, own: bool) -> str:
    if value.mean is None:
        return "not run"
    return wording.estimate(value) + (" ◼" if own else "")


def queries(study: Study, rows: Sequence[QueryRow]) -> Table:
    """Return what attacks without gradients cost: queries allowed, spent, and needed; and how often they succeed."""
    cells = tuple(
        (
            *_prefix(study, row.model),
            study.attack_title(row.attack),
            _ACCESS.get(row.access, row.access),
            row.threat,
            study.defense_title(row.defense),
            count(row.budget),
            count(row.spent),
            _queries(row.median),
            wording.estimate(row.success),
        )
        for row in rows
    )
    names = ("Attack", "Access", "Threat", "Defence", "Query budget", "Most spent", "Median queries to success")
    headings = (*_prefix(study, "Model"), *names, "Attack success")
    caption = (
        "Attacks that use no gradient, at the largest budget of each threat family: queries per "
        f"{study.subject[0]}; the median is over those that were right when clean and fell (95 % CI over trials)"
    )
    return Table(caption, headings, cells, 4 + len(_prefix(study, "")))


def _queries(value: Estimate) -> str:
    if value.mean is None:
        return "none fell"
    bounds = (
        "" if value.low is None or value.high is None else f" ({count(value.low)}{NBSP}to{NBSP}{count(value.high)})"
    )
    return count(value.mean) + bounds


def errors(study: Study, rows: Sequence[ErrorRow]) -> Table:
    """Return the mean error of every defence under one threat family."""
    cells = [(row.title, wording.plain_estimate(row.clean), wording.plain_estimate(row.attacked)) for row in rows]
    caption = f"Mean {error_name(study)}, without attack and in the worst case under {rows[0].threat} (95 % CI)"
    return plain(caption, ("Defence", "Without attack", "Under attack"), cells)


def gaps(found: Sequence[Gap]) -> tuple[Table, ...]:
    """Return the failed cells and the skipped ones as tables; none where there are none."""
    captions = {
        True: "Failed: tried, but without a result; the worst case does not cover them",
        False: "Skipped before any time was spent: attack and threat, or attack and model, do not fit",
    }
    headings = ("Attack", "Threat", "Searched on", "Reason", "Cells")
    rows = {
        failed: [
            (gap.attack, ", ".join(gap.threats), ", ".join(gap.sources), gap.reason, str(gap.cells))
            for gap in found
            if gap.failed == failed
        ]
        for failed in captions
    }
    return tuple(plain(captions[failed], headings, some, 4) for failed, some in rows.items() if some)


def attacks(run: RunFolder, study: Study) -> Table:
    """Return the attacks with their papers, threat ids, access and mean cost."""
    rows = []
    for attack in study.attacks:
        used = run.metrics[(run.metrics["attack"] == attack.label) & (run.metrics["group"] == "all")]
        access = ", ".join(sorted({str(value) for value in used["access"].dropna()})) or "–"
        passes = [used[name].mean() for name in ("mean_forwards", "mean_backwards")]
        cost = " + ".join(_passes(float(value)) for value in passes) if len(used) else "–"
        kind = "least perturbation" if attack.minimal else "fixed budget"
        ids = ", ".join(attack.ids) or "–"
        rows.append((attack.title, attack.label, attack.paper or "–", ids, kind, access, settings(attack.spec), cost))
    headings = (
        "Attack",
        "Label",
        "Paper",
        "NIST AI 100-2e2025, MITRE ATLAS",
        "Kind",
        "Access",
        "Settings",
        "Passes per sample",
    )
    return Table("Attacks used; passes: forward + backward, mean per sample", headings, tuple(rows), 7)


def _passes(value: float) -> str:
    return general(value, 3) if value < 1000 else count(value)


def threats(study: Study) -> Table:
    """Return the threats with what an attacker may change, sees and wants."""
    rows = tuple(
        (
            threat.label,
            wording.change_words(threat, study.kind),
            wording.access_long(threat.access),
            goal_words(threat.goal, study),
            "; ".join(threat.domain) or "–",
        )
        for ladder in study.families.values()
        for threat in ladder
    )
    headings = ("Threat", "The attacker may make", "The attacker", "Goal", "Domain rules that always hold")
    return Table("Threats", headings, rows, 5)


def settings(spec: Any) -> str:
    """Write a plugin's settings as `steps = 40, step = 0.1`."""
    if isinstance(spec, dict):
        return ", ".join(f"{key} = {settings(value)}" for key, value in spec.items()) or "defaults"
    if isinstance(spec, list):
        return "; ".join(settings(value) for value in spec) or "none"
    return "–" if spec is None else str(spec)


def plain(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> Table:
    """Return a table of text."""
    return Table(caption, tuple(headings), tuple(tuple(row) for row in rows), text_columns)


def _prefix(study: Study, model: str) -> tuple[str, ...]:
    """Name the model in a row only where there are several."""
    return (model,) if len(study.models) > 1 else ()
