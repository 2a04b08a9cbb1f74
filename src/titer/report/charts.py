"""Which figures the report draws, from which numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from titer.report import figures
from titer.report.figures import Dot, Figure, Row, Series
from titer.report.findings import Findings
from titer.report.load import RunFolder
from titer.report.numbers import Numbers
from titer.report.study import UNDEFENDED, WORST, Study
from titer.report.wording import lower_first, unit_words

_SAME = 1e-6
_CUT = 4


@dataclass(frozen=True, slots=True)
class Artist:
    """Draws the figures of one run; every defence keeps its style throughout."""

    run: RunFolder
    study: Study
    numbers: Numbers
    findings: Findings

    def style(self, defense: str) -> int:
        """Return the style of a defence; the undefended model has the first."""
        return self.study.defenses.index(defense) if defense in self.study.defenses else 0

    def headline(self, model: str, family: str) -> Figure:
        """Draw the first page's bars: without attack, under attack, and with each defence."""
        rows = self.findings.of(model, family)
        base = rows[0]
        bars = [("No attack, no defence", self.style(UNDEFENDED), base.clean, False)]
        bars += [
            (
                ("✕ " if row.failed else "") + f"Attacked: {lower_first(row.title)}",
                self.style(row.defense),
                row.adaptive,
                row.failed > 0,
            )
            for row in rows
        ]
        doubted = " ✕, dashed: overestimated." if any(row.failed for row in rows) else ""
        threat = self.study.largest(family).label
        caption = f"Right, % of {self.study.subject[1]} (95 % CI); attacked: worst case under {threat}.{doubted}"
        return figures.headline(bars, caption)

    def curve(self, model: str, family: str) -> Figure:
        """Draw robust accuracy against the budget, worst case over adaptive attacks, one line a defence."""
        ladder = self.study.families[family]
        lines = []
        for defense in self.study.defenses:
            points = [(0.0, self.numbers.clean(model, defense))]
            points += [(threat.eps, self.numbers.worst(model, defense, threat.label)) for threat in ladder]
            if any(one.mean is not None for _, one in points[1:]):
                lines.append(Series(self._name(model, defense), self.style(defense), tuple(points)))
        caption = (
            f"{self._of(model)}Accuracy under {family} attack against the budget: worst case over all attacks by "
            "an attacker who knows the defence. Budget 0 is the accuracy without attack; shaded: 95 % CI."
        )
        return figures.curves(
            lines, f"Budget, {unit_words(ladder[0].unit)}", f"Right (% of {self.study.subject[1]})", caption
        )

    def survivals(self, model: str, family: str) -> list[Figure]:
        """Draw, for each least-perturbation attack, the share not fooled within each distance."""
        drawn = []
        for attack in self.study.attacks:
            if not attack.minimal:
                continue
            curves = {defense: self._survival(model, defense, family, attack.label) for defense in self.study.defenses}
            lines = [(self._name(model, d), self.style(d), points) for d, points in curves.items() if points]
            if not lines:
                continue
            threat = self.study.largest(family)
            caption = (
                f"{self._of(model)}Share of {self.study.subject[1]} not fooled by {attack.title} within each distance "
                f"({family}); {self.study.subject[1]} misclassified without attack count as fooled at distance 0. "
                f"Dashed verticals: the budgets of the plan; the axis ends at {_CUT} times the largest at most."
            )
            marks = [one.eps for one in self.study.families[family]]
            right = min(_CUT * threat.eps, max(1.05 * threat.eps, *(points[-1][0] for _, _, points in lines)))
            kept = [(name, style, [point for point in points if point[0] <= right]) for name, style, points in lines]
            closed = [(name, style, [*points, (right, points[-1][1])]) for name, style, points in kept]
            drawn.append(figures.steps(closed, marks, f"Distance, {unit_words(threat.unit)}", caption))
        return drawn

    def _survival(self, model: str, defense: str, family: str, attack: str) -> list[tuple[float, float]]:
        """Return (distance, share not fooled within it), from distance 0 on."""
        threat = self.study.largest(family)
        rows = self.run.outcomes
        mask = (rows["model"] == model) & (rows["defense"] == defense) & (rows["source"] == defense)
        rows = rows[mask & (rows["attack"] == attack) & (rows["threat"] == threat.label)]
        column = f"distance_{threat.norm}"
        if rows.empty or column not in rows.columns:
            return []
        distances = np.sort(_fooled_at(rows, column, threat.eps))
        finite = distances[np.isfinite(distances)]
        values, counts = np.unique(np.round(finite, 6), return_counts=True)
        left = 1.0 - np.cumsum(counts) / len(distances)
        points = [(0.0, 1.0)] if not len(values) or values[0] > 0 else []
        # 200 steps are all that a figure can show
        keep = range(0, len(values), max(1, math.ceil(len(values) / 200)))
        shown = sorted({*keep, len(values) - 1} - {-1})
        return points + [(float(values[i]), float(max(left[i], 0.0))) for i in shown]

    def accuracy(self, model: str, defense: str) -> Figure | None:
        """Draw accuracy before and after each attack at the largest budget of each family."""
        before, rows = self.numbers.clean(model, defense), []
        for family in self.study.families:
            threat = self.study.largest(family).label
            for attack in [*self.numbers.attacks(model, defense, threat), WORST]:
                after = self.numbers.get(model, defense, attack, threat, "accuracy")
                if after.mean is not None:
                    name = f"{self.study.attack_title(attack)} · {threat}"
                    rows.append(Row(name, self.style(defense), before, after))
        if not rows:
            return None
        caption = "Accuracy before (hollow) and after (solid) each attack; bars: 95 % CI."
        return figures.dumbbells(
            rows, f"Right (% of {self.study.subject[1]})", caption, self._of(model) + self._name(model, defense)
        )

    def errors(self, model: str, family: str, metric: str, title: str) -> Figure | None:
        """Draw an error rate before and after the worst case, one row a defence."""
        threat = self.study.largest(family).label
        rows = [
            Row(
                self._name(model, d),
                self.style(d),
                self.numbers.clean(model, d, metric),
                self.numbers.worst(model, d, threat, metric),
            )
            for d in self.study.defenses
        ]
        rows = [row for row in rows if row.after.mean is not None]
        caption = f"{title} before (hollow) and after (solid) attack, worst case under {threat}; bars: 95 % CI."
        return figures.dumbbells(rows, f"{title} (%)", caption, self._of(model) + title) if rows else None

    def tradeoff(self, model: str, family: str) -> Figure:
        """Draw robust against clean accuracy, one dot a defence."""
        rows = self.findings.of(model, family)
        dots = [Dot(row.title, self.style(row.defense), row.clean, row.adaptive, row.failed > 0) for row in rows]
        caption = (
            f"{self._of(model)}Robust against clean accuracy under {self.study.largest(family).label}; up is safer "
            "under attack, right is better without. Bars: 95 % CI. Hollow: a check failed."
        )
        return figures.scatter(dots, caption)

    def _name(self, model: str, defense: str) -> str:
        title = self.study.defense_title(defense)
        doubted = any(row.failed for row in self.findings.rows if row.model == model and row.defense == defense)
        return f"{title} – overestimated" if doubted else title

    def _of(self, model: str) -> str:
        return f"{model}. " if len(self.study.models) > 1 else ""


def _fooled_at(rows: pd.DataFrame, column: str, eps: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the distance at which each row is fooled: 0 if wrong when clean, infinite where no find is known."""
    distance = rows[column].to_numpy(dtype=np.float64)
    found = rows["won"].to_numpy(dtype=bool) | (distance > eps * (1 + _SAME))
    wrong = (rows["clean_prediction"] != rows["label"]).to_numpy(dtype=bool)
    at = np.where(found & np.isfinite(distance), distance, np.inf)
    return np.where(wrong, 0.0, at)
