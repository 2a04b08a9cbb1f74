"""Which figures the report draws, from which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from titer.report import figures
from titer.report.before import before
from titer.report.figures import Dot, Row, Series
from titer.report.findings import DefenseRow, Findings
from titer.report.goals import at_stake, goal_class
from titer.report.graded import ErrorRow, error_name
from titer.report.heatmap import heatmap
from titer.report.load import ANY_ERROR
from titer.report.marks import Figure
from titer.report.numbers import Estimate, Numbers
from titer.report.shares import complement
from titer.report.shifts import Shift
from titer.report.staircase import Stairs, staircase
from titer.report.study import UNDEFENDED, WORST, Study, Threat
from titer.report.survival import Staircase
from titer.report.tallies import Tallies
from titer.report.transfers import TransferMatrix, source_name
from titer.report.wording import lower_first, unit_words

_MOST_ATTACKS = 6
_MOST_BARS, _FEW_BARS = 8, 6


@dataclass(frozen=True, slots=True)
class Artist:
    """Draws the figures of one run; every defence keeps its style throughout."""

    study: Study
    numbers: Numbers
    findings: Findings
    tallies: Tallies
    staircases: tuple[Staircase, ...]

    def style(self, defense: str) -> int:
        """Return the style of a defence; the undefended model has the first."""
        return self.study.defenses.index(defense) if defense in self.study.defenses else 0

    def headline(self, model: str, family: str) -> Figure:
        """Draw the first page's bars: without attack, under attack, and with each defence."""
        everyone, threat = self.findings.of(model, family), self.study.largest(family)
        rows = foremost(everyone)
        values = {row.defense: self._left(model, row.defense, (threat,)) for row in rows}
        bars = [("No attack, no defence", self.style(UNDEFENDED), values[rows[0].defense][0], False)]
        bars += [
            (
                ("✕ " if row.failed else "") + f"Attacked: {lower_first(row.title)}",
                self.style(row.defense),
                values[row.defense][1][0],
                row.failed > 0,
            )
            for row in rows
        ]
        doubted = " ✕, dashed: overestimated." if any(row.failed for row in rows) else ""
        who = self.study.subject[1] if self._everybody(threat) else self._rows(threat)
        caption = f"Right, % of {who} (95 % CI); attacked: worst case under {threat.label}.{doubted}"
        if len(rows) < len(everyone):
            caption += f" The best {len(rows) - 1} of {len(everyone) - 1} defences; the ranking below has them all."
        return figures.headline(f"headline {model} {family}", bars, caption)

    def curve(self, model: str, family: str) -> Figure:
        """Draw robust accuracy against the budget, worst case over adaptive attacks, one line a defence."""
        ladder = self.study.families[family]
        lines = []
        for defense in self.study.defenses:
            clean, left = self._left(model, defense, ladder)
            points = [(0.0, clean), *((threat.eps, value) for threat, value in zip(ladder, left, strict=True))]
            if any(one.mean is not None for _, one in points[1:]):
                lines.append(Series(self._name(model, defense), self.style(defense), tuple(points)))
        what = "Accuracy" if self._everybody(ladder[0]) else f"Accuracy on the {self._rows(ladder[0])},"
        caption = (
            f"{self._of(model)}{what} under {family} attack against the budget: worst case over all attacks by "
            "an attacker who knows the defence. Budget 0 is the accuracy without attack; shaded: 95 % CI."
        )
        axes = (f"Budget, {unit_words(ladder[0].unit)}", f"Right (% of {self._short_rows(ladder[0])})")
        return figures.curves(f"curve {model} {family}", lines, *axes, caption)

    def _left(self, model: str, defense: str, ladder: tuple[Threat, ...]) -> tuple[Estimate, list[Estimate]]:
        """Return what is right without attack, and in the worst case at each budget, of the rows at stake."""
        if self._everybody(ladder[0]):
            clean = before(self.numbers, self.tallies, model, defense, ladder[0])
            return clean, [self.numbers.worst(model, defense, threat.label) for threat in ladder]
        found = [at_stake(self.study, self.tallies, model, defense, threat) for threat in ladder]
        return found[0][0], [held for _, held in found]

    def _everybody(self, threat: Threat) -> bool:
        return goal_class(threat.goal, self.study) is None

    def _rows(self, threat: Threat) -> str:
        """Name the rows that a threat's goal is about."""
        many = self.study.subject[1]
        if threat.goal == ANY_ERROR:
            return many
        if self._everybody(threat):
            return f"{many} that the goal is about"
        return f"{many} {'with' if threat.goal.startswith('hide') else 'without'} “{threat.goal.partition(':')[2]}”"

    def _short_rows(self, threat: Threat) -> str:
        return self.study.subject[1] if threat.goal == ANY_ERROR else "those at stake"

    def stairs(self, model: str, family: str) -> list[Figure]:
        """Draw the staircase of each least-perturbation attack, the one that finds the smallest changes first."""
        found: dict[str, list[Staircase]] = {}
        for line in self.staircases:
            if (line.model, line.family) == (model, family):
                found.setdefault(line.attack, []).append(line)
        ranked = sorted(found.items(), key=lambda pair: sum(line.median for line in pair[1]) / len(pair[1]))
        return [self._stairs(model, family, attack, lines) for attack, lines in ranked]

    def _stairs(self, model: str, family: str, attack: str, lines: list[Staircase]) -> Figure:
        threat = self.study.largest(family)
        lost = "misclassified" if threat.goal == ANY_ERROR else "already where the attacker wants them"
        caption = (
            f"{self._of(model)}Share of the {self._rows(threat)} not fooled by {self.study.attack_title(attack)} "
            f"within each distance ({family}; shaded: 95 % CI); those {lost} without attack count as fooled at 0. "
            "Large points: the strongest attack with a fixed budget (bars: 95 % CI); small points: every other one."
        )
        name = f"staircase {model} {family} {attack}"
        axes = (f"Distance or budget, {unit_words(threat.unit)}", f"Not fooled (% of {self._short_rows(threat)})")
        drawn = [
            Stairs(self._name(model, line.defense), self.style(line.defense), line, *self._fixed(line))
            for line in lines
        ]
        return staircase(name, drawn, *axes, caption)

    def _fixed(self, line: Staircase) -> tuple[tuple[tuple[float, Estimate], ...], tuple[tuple[float, float], ...]]:
        """Return what the fixed-budget attacks left at each budget: the strongest one, and the others."""
        strongest, others = [], []
        for threat in self.study.families[line.family]:
            left = [
                self.tallies.withstood(line.model, line.defense, attack.label, threat.label)
                for attack in self.study.attacks
                if not attack.minimal
            ]
            known = sorted((one for one in left if one.mean is not None), key=lambda one: one.mean or 0.0)
            strongest += [(threat.eps, one) for one in known[:1]]
            others += [(threat.eps, one.mean or 0.0) for one in known[1:]]
        return tuple(strongest), tuple(others)

    def accuracy(self, model: str, defense: str) -> Figure | None:
        """Draw accuracy before and after the strongest attacks at the largest budget of each family."""
        rows, most = [], 0
        for family in self.study.families:
            largest = self.study.largest(family)
            threat, clean = largest.label, before(self.numbers, self.tallies, model, defense, largest)
            names = self.numbers.attacks(model, defense, threat)
            most = max(most, len(names))
            after = [(name, self.numbers.get(model, defense, name, threat, "accuracy")) for name in names]
            known = [pair for pair in after if pair[1].mean is not None]
            kept = {name for name, _ in sorted(known, key=lambda pair: pair[1].mean or 0.0)[:_MOST_ATTACKS]}
            worst = (WORST, self.numbers.worst(model, defense, threat))
            shown = [*([worst] if worst[1].mean is not None else []), *(pair for pair in known if pair[0] in kept)]
            rows += [
                Row(f"{self.study.attack_title(name)} · {threat}", self.style(defense), clean, value)
                for name, value in shown
            ]
        if not rows:
            return None
        few = "each attack" if most <= _MOST_ATTACKS else f"the worst case and the {_MOST_ATTACKS} strongest attacks"
        caption = f"Accuracy before (hollow) and after (solid) {few}; bars: 95 % CI."
        title = self._of(model) + self._name(model, defense)
        axis = f"Right (% of {self.study.subject[1]})"
        return figures.dumbbells(f"accuracy {model} {defense}", rows, axis, caption, title)

    def errors(self, shifts: Sequence[Shift], *, missed: bool) -> Figure | None:
        """Draw the share of missed findings, or of false alarms, before and after the worst case, one row a defence."""
        rows = [
            Row(self._name(one.model, one.defense), self.style(one.defense), complement(clean), complement(after))
            for one in shifts
            for clean, after in [
                (one.sensitivity_clean, one.sensitivity_attacked)
                if missed
                else (one.specificity_clean, one.specificity_attacked)
            ]
            if after.mean is not None
        ]
        if not rows:
            return None
        model, threat, about = shifts[0].model, shifts[0].threat, shifts[0].about
        title = ("Missed findings, FNR" if about else "Missed class, FNR") if missed else "False alarms, FPR"
        caption = f"{title} before (hollow) and after (solid) attack, worst case under {threat}; bars: 95 % CI."
        name = f"{'fnr' if missed else 'fpr'} {model} {shifts[0].family}"
        return figures.dumbbells(name, rows, f"{title} (%)", caption, self._of(model) + title)

    def graded(self, errors: Sequence[ErrorRow]) -> Figure:
        """Draw the mean error before and after the worst case, one row a defence."""
        rows = [
            Row(self._name(one.model, one.defense), self.style(one.defense), one.clean, one.attacked) for one in errors
        ]
        what, first = error_name(self.study), errors[0]
        caption = (
            f"Mean error before (hollow) and after (solid) attack, worst case under {first.threat}; bars: 95 % CI."
        )
        name = f"error {first.model} {first.family}"
        title = f"{self._of(first.model)}Mean error"
        return figures.dumbbells(name, rows, f"Mean {what}", caption, title, shares=False)

    def matrix(self, one: TransferMatrix) -> Figure:
        """Draw attack success by source and target."""
        threat = self.study.threat(one.threat)
        access = "white box" if threat is None or threat.access == "gradient" else "with the access of the threat"
        caption = (
            f"{self._of(one.model)}Attack success (%) under {one.threat}: share of {self.study.subject[1]}, right when "
            "clean, that at least one attack made wrong. Rows: the model that inputs were found on; columns: the model "
            f"that they were shown to, by the letter of its row. Outlined: the same model, {access}. –: not run."
        )
        own = [one.targets.index(source) if source in one.targets else -1 for source in one.sources]
        names = [source_name(self.study, source) for source in one.sources]
        targets = [self.study.defense_title(target) for target in one.targets]
        title = self._of(one.model) + one.threat
        return heatmap(f"transfer {one.model} {one.family}", names, targets, one.success, own, caption, title)

    def tradeoff(self, model: str, family: str) -> Figure:
        """Draw robust against clean accuracy, one dot a defence."""
        rows = self.findings.of(model, family)
        dots = [Dot(row.title, self.style(row.defense), row.clean, row.adaptive, row.failed > 0) for row in rows]
        caption = (
            f"{self._of(model)}Robust against clean accuracy under {self.study.largest(family).label}; up is safer "
            "under attack, right is better without. Bars: 95 % CI. Hollow: a check failed."
        )
        return figures.scatter(f"trade-off {model} {family}", dots, caption)

    def _name(self, model: str, defense: str) -> str:
        title = self.study.defense_title(defense)
        doubted = any(row.failed for row in self.findings.rows if row.model == model and row.defense == defense)
        return f"{title} – overestimated" if doubted else title

    def _of(self, model: str) -> str:
        return f"{model}. " if len(self.study.models) > 1 else ""


def foremost(rows: Sequence[DefenseRow]) -> tuple[DefenseRow, ...]:
    """Return the rows that a first page has room for: the undefended model, and of many defences the best trusted."""
    if len(rows) - 1 <= _MOST_BARS:
        return tuple(rows)
    trusted = sorted((row for row in rows[1:] if not row.failed), key=lambda row: -(row.adaptive.mean or 0.0))
    best = {row.defense for row in trusted[:_FEW_BARS]}
    return tuple(row for row in rows if row is rows[0] or row.defense in best)
