"""What was studied, in names: models, defences, attacks, threats and classes, read off the manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from titer.report.load import ANY_ERROR, RunFolder

UNDEFENDED = "none"
WORST = "worst-case"


@dataclass(frozen=True, slots=True)
class Threat:
    """One threat at one budget.

    Attributes:
        label: its name in the tables, e.g. `linf 8/255`.
        family: the threat without its budget.
        norm: what is measured: `linf`, `l2`, `l1`, `l0`.
        eps: the budget, in `unit`.
        unit: the unit of the budget.
        access: what the attacker sees: `gradient`, `scores` or `decision`.
        goal: what the attacker wants.
        domain: the rules that every attacked input keeps.
    """

    label: str
    family: str
    norm: str
    eps: float
    unit: str
    access: str
    goal: str
    domain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack of the plan; `minimal` where it searches for the least perturbation, `access` the least it needs."""

    label: str
    title: str
    paper: str
    ids: tuple[str, ...]
    minimal: bool
    spec: Any
    access: str


@dataclass(frozen=True, slots=True)
class Study:
    """The names of everything that was studied.

    Attributes:
        title: the report's title.
        kind: `image`, `table`, or the data's own word.
        subject: what one test row stands for, e.g. ("patient", "patients").
        patients: distinct patients in the test rows of all trials.
        classes: the class names.
        positive: index of the positive class, None unless the data are binary.
        output: what a prediction is: `classes` (one of several), `labels` (several findings), `value`, `mask`, or
            `other` where rows have an error of an unnamed kind.
        output_unit: the unit of a value, empty where there is none; `tolerance` is the error that does no harm in it.
        tolerance: None where there is none.
        models: labels, in the plan's order.
        defenses: labels of the defences, `none` first.
        defense_titles: the title of each defence.
        attacks: the attacks, in the plan's order.
        families: threats of each family, smallest budget first.
        groups: names of the subgroup columns.
        trials: number of trials.
    """

    title: str
    kind: str
    subject: tuple[str, str]
    patients: int
    classes: tuple[str, ...]
    positive: int | None
    output: str
    output_unit: str
    tolerance: float | None
    models: tuple[str, ...]
    defenses: tuple[str, ...]
    defense_titles: dict[str, str] = field(hash=False)
    attacks: tuple[Attack, ...]
    families: dict[str, tuple[Threat, ...]] = field(hash=False)
    groups: tuple[str, ...]
    trials: int

    @property
    def graded(self) -> bool:
        """Whether predictions have an error instead of a class: there is no sensitivity then."""
        return self.output != "classes"

    @property
    def positive_name(self) -> str:
        """Name of the positive class of binary data; empty otherwise."""
        return self.classes[self.positive] if self.positive is not None else ""

    def defense_title(self, label: str) -> str:
        """Return the title of a defence, its label where it has none."""
        return self.defense_titles.get(label) or label

    def attack_title(self, label: str) -> str:
        """Return the title of an attack; the worst case has a title of its own."""
        if label == WORST:
            return "Worst case over all attacks"
        return next((attack.title for attack in self.attacks if attack.label == label and attack.title), label)

    def largest(self, family: str) -> Threat:
        """Return the threat of `family` with the largest budget in the plan."""
        return self.families[family][-1]

    def threat(self, label: str) -> Threat | None:
        """Return the threat called `label`, None where the plan has none."""
        return next((one for ladder in self.families.values() for one in ladder if one.label == label), None)


def read_study(run: RunFolder) -> Study:
    """Read the names of everything that was studied off the manifest and the test rows of `run`."""
    manifest, data = run.manifest, run.manifest["data"]
    classes = tuple(map(str, data.get("classes") or ()))
    positive, output = data.get("positive"), _output(run)
    clean = run.outcomes[run.outcomes["attack"] == "none"]
    rows = run.outcomes if clean.empty else clean
    labels = [str(one["label"]) for one in manifest["defenses"]]
    groups = [str(name).removeprefix("group:") for name in run.outcomes.columns if str(name).startswith("group:")]
    return Study(
        title=str(manifest.get("title") or manifest.get("name") or "Robustness assessment"),
        kind=str(data.get("kind") or "input"),
        subject=_subject(int(rows["sample_id"].nunique()), int(rows["patient_id"].nunique()), str(data.get("kind"))),
        patients=int(rows["patient_id"].nunique()),
        classes=classes,
        positive=int(positive) if positive is not None and len(classes) == 2 and output == "classes" else None,
        output=output,
        output_unit=str(data.get("output_unit") or ""),
        tolerance=None if data.get("tolerance") is None else float(data["tolerance"]),
        models=tuple(str(one["label"]) for one in manifest["models"]),
        defenses=tuple(sorted(labels, key=lambda label: label != UNDEFENDED)),
        defense_titles={str(one["label"]): str(one.get("title") or one["label"]) for one in manifest["defenses"]},
        attacks=tuple(_attack(one) for one in manifest["attacks"]),
        families=_families([_threat(one) for one in manifest["threats"]]),
        groups=tuple(groups),
        trials=int(manifest["trials"]),
    )


def _output(run: RunFolder) -> str:
    named = str(run.manifest["data"].get("output") or "")
    if named in ("labels", "value", "mask"):
        return named
    return "other" if run.outcomes["clean_error"].notna().any() else "classes"


def _subject(samples: int, patients: int, kind: str) -> tuple[str, str]:
    """Name one test row: a patient only where every patient has one row, so that a share is a share of what it says."""
    if samples <= patients:
        return "patient", "patients"
    return ("test image", "test images") if kind == "image" else ("test record", "test records")


def _attack(one: dict[str, Any]) -> Attack:
    return Attack(
        label=str(one["label"]),
        title=str(one.get("title") or one["label"]),
        paper=str(one.get("paper") or ""),
        ids=tuple(map(str, one.get("threats") or ())),
        minimal=bool(one.get("minimal")),
        spec=one.get("spec"),
        access=str(one.get("access") or ""),
    )


def _threat(one: dict[str, Any]) -> Threat:
    return Threat(
        label=str(one["label"]),
        family=str(one.get("family") or one["label"]),
        norm=str(one.get("norm") or ""),
        eps=float(one.get("eps") or 0.0),
        unit=str(one.get("unit") or ""),
        access=str(one.get("access") or ""),
        goal=ANY_ERROR if one.get("goal") in (None, "", "untargeted") else str(one["goal"]),
        domain=tuple(map(str, one.get("domain") or ())),
    )


def _families(threats: list[Threat]) -> dict[str, tuple[Threat, ...]]:
    ladders: dict[str, list[Threat]] = {}
    for threat in threats:
        ladders.setdefault(threat.family, []).append(threat)
    return {family: tuple(sorted(ladder, key=lambda one: one.eps)) for family, ladder in ladders.items()}
