"""The report's plain tables: rows of text that the template only lays out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from titer.report import wording
from titer.report.findings import Findings
from titer.report.format import duration, general, ratio
from titer.report.load import RunFolder
from titer.report.numbers import Numbers
from titer.report.study import WORST, Study
from titer.report.subgroups import GroupRow


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, headings, and rows of text; the first column names its row. `numeric` columns are set right."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1


def accuracy(study: Study, numbers: Numbers) -> Table:
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
                        before = wording.estimate(numbers.clean(model, defense))
                        names = (study.defense_title(defense), study.attack_title(attack), threat.label)
                        cells = (before, wording.estimate(after), wording.estimate(success))
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
            wording.estimate(row.sensitivity_clean),
            wording.estimate(row.sensitivity_robust),
        )
        for row in rows
    )
    first = ("Defence",) if shared == "Worst" else ()
    headings = (*first, "Threat", "Subgroup", "n per trial", "Accuracy without", "Accuracy under attack")
    more = ("Sensitivity without", "Sensitivity under attack")
    return Table(
        f"{shared} case by subgroup, at the largest budget of each threat family; mean over trials "
        "(Wilson 95 % interval for the rows of one trial)",
        (*_prefix(study, "Model"), *headings, *more),
        found,
        2 + len(first) + len(_prefix(study, "")),
    )


def attacks(run: RunFolder, study: Study) -> Table:
    """Return the attacks with their papers, threat ids, access and mean cost."""
    rows = []
    for attack in study.attacks:
        used = run.metrics[(run.metrics["attack"] == attack.label) & (run.metrics["group"] == "all")]
        access = ", ".join(sorted({str(value) for value in used["access"].dropna()})) or "–"
        passes = [used[name].mean() for name in ("mean_forwards", "mean_backwards")]
        cost = " + ".join(general(float(value), 3) for value in passes) if len(used) else "–"
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


def threats(study: Study) -> Table:
    """Return the threats with what an attacker may change, sees and wants."""
    rows = tuple(
        (
            threat.label,
            wording.threat_words(threat, study.kind),
            wording.access_long(threat.access),
            threat.goal,
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
