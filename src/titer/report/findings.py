"""The report's conclusions: one verdict for each model and threat family, one row for each defence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titer.report import trust, wording
from titer.report.before import before
from titer.report.costs import Cost, relative_costs
from titer.report.gains import Gain, read_gain
from titer.report.goals import at_stake, goal_class, rates
from titer.report.graded import error_name
from titer.report.load import RunFolder
from titer.report.numbers import Estimate, Numbers
from titer.report.shares import complement
from titer.report.study import UNDEFENDED, Study, Threat
from titer.report.tallies import Tallies

_NOTABLE = 0.005


@dataclass(frozen=True, slots=True)
class DefenseRow:
    """One defence under the largest budget of a threat family.

    Attributes:
        model: the base model.
        family: the threat family.
        defense: label of the defence; `title` is its name.
        title: its name in words.
        clean: accuracy without attack, in the sense of the threat's goal.
        adaptive: accuracy in the worst case, by an attacker who knows the defence.
        transfer: lowest accuracy under inputs found on the undefended model; `transfer_attack` found them.
        transfer_attack: title of that attack.
        gain: what it takes off the attack's success; None for the undefended model.
        cost: training and inference relative to the undefended model.
        failed: number of failed checks, under any threat.
        mark: whether it earns the green mark.
        reason: why it does or does not.
    """

    model: str
    family: str
    defense: str
    title: str
    clean: Estimate
    adaptive: Estimate
    transfer: Estimate
    transfer_attack: str
    gain: Gain | None
    cost: Cost
    failed: int
    mark: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion on one model under one threat family, at the largest budget of the plan.

    Attributes:
        model: the base model.
        family: the threat family.
        threat: label of the largest budget.
        tone: `bad` where a number is distrusted, `good` where a defence has the mark and misses
            no more findings, `plain` otherwise.
        sentence: the verdict.
        warnings: the sentences on numbers that must not be trusted.
        notes: what the best defence costs in missed findings.
        clean: accuracy of the undefended model without attack, in the sense of the threat's goal.
        attacked: the same in the worst case.
        best: label of the best defence without a failed check, empty where there is none.
    """

    model: str
    family: str
    threat: str
    tone: str
    sentence: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    clean: Estimate
    attacked: Estimate
    best: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything the first page says, and the rows it rests on."""

    verdicts: tuple[Verdict, ...]
    rows: tuple[DefenseRow, ...]
    failures: tuple[dict[str, Any], ...]
    alarms: tuple[dict[str, Any], ...]
    cautions: tuple[str, ...]

    def of(self, model: str, family: str) -> tuple[DefenseRow, ...]:
        """Return the defences of one model under one threat family, the undefended model first."""
        return tuple(row for row in self.rows if row.model == model and row.family == family)


def find(run: RunFolder, study: Study, numbers: Numbers, tallies: Tallies) -> Findings:
    """Draw the conclusions of `run`."""
    rows, verdicts = [], []
    for model in study.models:
        for family in study.families:
            some = [_row(run, study, numbers, tallies, model, family, defense) for defense in study.defenses]
            some = [row for row in some if row.adaptive.mean is not None or row.defense == UNDEFENDED]
            rows += some
            verdicts.append(_verdict(study, numbers, tallies, model, family, some))
    return Findings(
        verdicts=tuple(verdicts),
        rows=tuple(rows),
        failures=tuple(check for check in run.checks if check.get("result") == "fail"),
        alarms=trust.alarms(run),
        cautions=trust.cautions(run, study, numbers),
    )


def _row(
    run: RunFolder, study: Study, numbers: Numbers, tallies: Tallies, model: str, family: str, defense: str
) -> DefenseRow:
    threat = study.largest(family).label
    failed = trust.failures(run, model, defense)
    gain = None if defense == UNDEFENDED else read_gain(run.statistics, model, defense, threat)
    missing = trust.missing_attacks(study, numbers, model, defense, family)
    bare, held = numbers.worst(model, UNDEFENDED, threat).mean, numbers.worst(model, defense, threat).mean
    better = bare is not None and held is not None and held > bare
    mark, reason = _judge(gain, len(failed), missing, checked=trust.checked(run, model, defense), better=better)
    transfer, by = numbers.transferred(model, defense, threat)
    return DefenseRow(
        model=model,
        family=family,
        defense=defense,
        title=study.defense_title(defense),
        clean=before(numbers, tallies, model, defense, study.largest(family)),
        adaptive=numbers.worst(model, defense, threat),
        transfer=transfer,
        transfer_attack=study.attack_title(by) if by else "",
        gain=gain,
        cost=relative_costs(run.costs, model, defense),
        failed=len(failed),
        mark=mark,
        reason=reason,
    )


def _judge(gain: Gain | None, failed: int, missing: list[str], *, checked: bool, better: bool) -> tuple[bool, str]:
    """Return whether a defence earns the green mark, and why; every doubt withholds it."""
    if failed:
        return False, f"robustness overestimated: {failed} failed {'check' if failed == 1 else 'checks'}"
    if gain is None:
        return False, "the reference"
    if not checked:
        return False, "no check of the measurement gave a result"
    if missing:
        return False, f"not attacked adaptively by {', '.join(missing)}"
    if not better:
        # attack success counts only what was right when clean: losing clean accuracy lowers it too
        return False, "not right more often under attack than the undefended model"
    return gain.significant, gain.reason


def _verdict(
    study: Study, numbers: Numbers, tallies: Tallies, model: str, family: str, rows: list[DefenseRow]
) -> Verdict:
    threat, base = study.largest(family), rows[0]
    defended = [row for row in rows[1:] if row.adaptive.mean is not None]
    trusted = sorted((row for row in defended if not row.failed), key=lambda row: -(row.adaptive.mean or 0.0))
    # a marked defence is preferred to a higher number whose gain is not shown
    best = next((row for row in trusted if row.mark), trusted[0] if trusted else None)
    who = "the undefended model" + (f" {model}" if len(study.models) > 1 else "")
    about = _finding(study, threat)
    sentence = wording.undefended_sentence(who, threat, study.kind, study.subject[1], base.clean, base.adaptive, about)
    sentence += _at_stake(study, numbers, tallies, model, threat)
    if best is not None:
        sentence += " " + wording.best_sentence(best.title, best.mark, best.adaptive, best.clean)
    elif defended:
        sentence += " No defence passed every check, so no defended number can be trusted."
    doubted = [row for row in rows if row.failed]
    notes = _missed(study, numbers, tallies, best) if best is not None else ()
    helped = best is not None and best.mark and not notes
    return Verdict(
        model=model,
        family=family,
        threat=threat.label,
        tone="bad" if doubted else "good" if helped else "plain",
        sentence=sentence,
        warnings=tuple(wording.distrust_sentence(_subject(row), row.adaptive, row.failed) for row in doubted),
        notes=notes,
        clean=base.clean,
        attacked=base.adaptive,
        best=best.defense if best is not None else "",
    )


def _finding(study: Study, threat: Threat) -> str:
    """Return the one finding of several that the threat's goal is about; empty where there is none."""
    aim = goal_class(threat.goal, study) if study.output == "labels" else None
    return "" if aim is None else study.classes[aim]


def _at_stake(study: Study, numbers: Numbers, tallies: Tallies, model: str, threat: Threat) -> str:
    """Return what accuracy over everybody does not say: those whom the goal is about, and the size of errors."""
    clean, hit = at_stake(study, tallies, model, UNDEFENDED, threat)
    hides, name, many = threat.goal.startswith("hide"), threat.goal.partition(":")[2], study.subject[1]
    found = ""
    if hit.mean is not None and study.graded:
        found = " " + wording.finding_sentence(many, name, complement(clean), complement(hit), hides=hides)
    elif hit.mean is not None:
        found = " " + wording.stake_sentence(many, name, clean, hit, has=hides)
    return found + (_size_of_errors(study, numbers, model, threat) if study.graded else "")


def _size_of_errors(study: Study, numbers: Numbers, model: str, threat: Threat) -> str:
    clean = numbers.clean(model, UNDEFENDED, "clean_error")
    hit = numbers.worst(model, UNDEFENDED, threat.label, "adversarial_error")
    return " " + wording.error_sentence(error_name(study), clean, hit) if hit.mean is not None else ""


def _missed(study: Study, numbers: Numbers, tallies: Tallies, best: DefenseRow) -> tuple[str, ...]:
    """Return the sentence that the best defence misses more findings, where its FNR rises by over half a point."""
    threat = study.largest(best.family)
    missed = [_miss_rates(study, numbers, tallies, best.model, label, threat) for label in (UNDEFENDED, best.defense)]
    (clean, hit), (defended_clean, defended_hit) = missed
    if clean is None or hit is None or defended_clean is None or defended_hit is None:
        return ()
    if max(defended_clean - clean, defended_hit - hit) < _NOTABLE:
        return ()
    pairs = (clean, defended_clean), (hit, defended_hit)
    return (wording.more_missed_sentence(best.title, _finding(study, threat) or study.positive_name, *pairs),)


def _miss_rates(
    study: Study, numbers: Numbers, tallies: Tallies, model: str, defense: str, threat: Threat
) -> tuple[float | None, float | None]:
    """Return the share of findings missed without attack and under it, of the goal's one finding where it has one."""
    if _finding(study, threat):
        found = rates(study, numbers, tallies, model, defense, threat)
        return complement(found.sensitivity_clean).mean, complement(found.sensitivity_attacked).mean
    return numbers.clean(model, defense, "fnr").mean, numbers.worst(model, defense, threat.label, "fnr").mean


def _subject(row: DefenseRow) -> str:
    return "the undefended model" if row.defense == UNDEFENDED else row.title
