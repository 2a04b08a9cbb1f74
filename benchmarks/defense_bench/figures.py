"""The figures that are asked of the defences, each read off one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from defense_bench.folder import THREAT, WORST, Folder, mean_of

_ANY = (-np.inf, np.inf)
_SMOOTHED = "randomized smoothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table."""

    what: str
    asked: str
    reached: str


def figures(folder: Folder) -> Iterator[Figure]:
    """Yield every figure that the run can tell."""
    for needs, figure in _FIGURES:
        if all(folder.has(one) for one in needs):
            yield figure(folder)
    for study, defense, figure in _STUDIED:
        if study in folder.studies and defense in set(folder.studies[study]["defense"]):
            yield figure(folder)


def _adversarial_training(folder: Folder) -> Figure:
    return Figure(
        what="adversarial training: cut in attack success / change of clean accuracy",
        asked=">= 70 % / >= -2 points",
        reached=f"{_cut(folder, 'adversarial training')} / {_clean(folder, 'adversarial training')}",
    )


def _fast_training(folder: Folder) -> Figure:
    usual = folder.metric("adversarial training", "accuracy")
    fast = folder.metric("fast adversarial training", "accuracy")
    return Figure(
        what="fast adversarial training: time / robust accuracy less PGD-7 training's / cut in attack success",
        asked="<= 1.5 x / >= -1.5 points",
        reached=f"{_time(folder, 'fast adversarial training')} (PGD-7: {_time(folder, 'adversarial training')}) / "
        f"{mean_of(fast - usual, bounds=_ANY, unit='points')} / {_cut(folder, 'fast adversarial training')}",
    )


def _distillation(folder: Folder) -> Figure:
    base, blind = folder.metric("none", "attack_success_rate"), _blind(folder, "distillation")
    unaware = mean_of(1 - blind / base, bounds=_ANY)
    return Figure(
        what="distillation: cut in attack success, adaptive / not adaptive",
        asked="whatever is true",
        reached=f"{_cut(folder, 'distillation')} / {unaware}{_doubt(folder, 'distillation')}",
    )


def _hybrid(folder: Folder) -> Figure:
    found = folder.section("transfer", "hybrid", _strongest(folder))
    return Figure(
        what="hybrid: adversarial inputs blocked, not adaptive (adaptive) / clean accuracy kept",
        asked=">= 90 % / >= 97 %",
        reached=f"{_three(found, 'recovered')} ({_three(found, 'adaptive')}) / {_three(found, 'clean_accuracy_kept')}",
    )


def _smoothing(folder: Folder) -> Figure:
    return Figure(
        what="randomized smoothing: training time / clean accuracy",
        asked="<= 1.3 x",
        reached=f"{_time(folder, 'randomized smoothing')} / {_clean(folder, 'randomized smoothing')}",
    )


def _lipschitz(folder: Folder) -> Figure:
    return Figure(
        what="Lipschitz network: training time / clean accuracy / cut in attack success",
        asked="<= 1.2 x",
        reached=f"{_time(folder, 'lipschitz')} / {_clean(folder, 'lipschitz')} / {_cut(folder, 'lipschitz')}",
    )


def _missed(folder: Folder) -> Figure:
    rises = {
        name: folder.metric(name, "fnr") - folder.metric(name, "fnr", attack="none")
        for name in ("none", "adversarial training", "cost-sensitive training", "hybrid")
        if folder.has(name)
    }
    said = "; ".join(
        f"{name} {mean_of(rise, bounds=_ANY, unit='points')}, false alarms {mean_of(folder.metric(name, 'fpr'))}"
        for name, rise in rises.items()
    )
    return Figure(
        what="rise of the false-negative rate under attack, with the false-positive rate that it is bought with",
        asked="<= 8 points after defence",
        reached=said,
    )


def _certified(folder: Folder) -> Figure:
    shares = _proven(folder, "interval training", "linf", 2)
    name = max(shares, key=lambda one: float(shares[one].mean()))
    return Figure(
        what=f"interval training: certified accuracy at 2/255 ({name})",
        asked=">= 75 %",
        reached=mean_of(shares[name]),
    )


def _smoothed_curve(folder: Folder) -> Figure:
    radii = (0.0, 0.125, 0.25, 0.5)
    curves = {radius: _proven(folder, _SMOOTHED, "l2", radius) for radius in radii}
    said = [
        f"{name}: " + "; ".join(f"{radius:g}: {mean_of(shares[name])}" for radius, shares in curves.items())
        for name in curves[0.0]
    ]
    costs = {
        f"{part['facts']['samples_per_row']:,} samples {1000 * part['facts']['cpu_seconds_per_row']:.0f} ms"
        for part in folder.parts["certification"]
        if part["defense"] == _SMOOTHED and "facts" in part and part["facts"]["samples_per_row"]
    }
    return Figure(
        what="randomized smoothing: certified accuracy within an l2 radius in value ranges; CPU time a row",
        asked="the curve; cost by sample count",
        reached=f"{' / '.join(said)}; {', '.join(sorted(costs))}",
    )


def _proven(folder: Folder, defense: str, norm: str, radius: float) -> dict[str, np.ndarray]:
    """Return by certifier the share of rows that are right and proven to stay so within the radius, float[T]."""
    table = folder.studies["certification"]
    mine = table[(table["defense"] == defense) & (table["norm"] == norm)]
    found = {}
    for name, rows in mine.groupby("certifier"):
        proven = rows["holds"] & (rows["radius"] >= radius - 1e-6)
        found[str(name)] = proven.groupby(rows["trial"]).mean().to_numpy(dtype=np.float64)
    return found


def _detected(folder: Folder) -> Figure:
    one = next(
        one
        for one in folder.report["detected"]["caught"]
        if (one["detector"], one["attack"], one["threat"]) == ("all together", "pgd", THREAT)
    )
    return Figure(
        what="detectors together: finds of PGD caught at 5 % (attacker does not know them) / gets through unnoticed, "
        "not knowing, knowing them",
        asked=">= 95 % / the figure",
        reached=f"{_share(one['caught']['0.05'])} / {_share(one['unnoticed'])}, {_share(one['adaptive'])}",
    )


def _latency(folder: Folder) -> Figure:
    watched = {one["detector"]: one["ratio"]["mean"] for one in folder.report["detected"]["watched"]}
    said = ", ".join(f"{name} {ratio:.2f} x" for name, ratio in watched.items() if ratio is not None)
    return Figure(
        what="guard path at batch 1, model and detector over the model alone (default: low-confidence)",
        asked="<= 1.4 x",
        reached=said,
    )


def _share(one: dict[str, float]) -> str:
    bounds = "" if one["low"] is None else f" ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
    return f"{100 * one['mean']:.1f} %{bounds}"


def _cut(folder: Folder, defense: str) -> str:
    return _three(folder.section("versus_undefended", defense, WORST), "relative_reduction")


def _clean(folder: Folder, defense: str) -> str:
    change = folder.metric(defense, "accuracy", attack="none") - folder.metric("none", "accuracy", attack="none")
    return mean_of(change, bounds=_ANY, unit="points")


def _time(folder: Folder, defense: str) -> str:
    cost = folder.row(defense)["cost"]
    return f"{cost['training_ratio']:.2f} x"


def _doubt(folder: Folder, defense: str) -> str:
    failed = folder.row(defense)["failed"]
    return f"; not to be trusted: {failed} failed checks" if failed else ""


def _blind(folder: Folder, defense: str) -> np.ndarray:
    """Return the success of the strongest attack whose inputs were found on the undefended model, float[T]."""
    return folder.metric(defense, "attack_success_rate", attack=_strongest(folder), source="none")


def _strongest(folder: Folder) -> str:
    table = folder.metrics
    own = table[(table["defense"] == "none") & (table["source"] == "none") & (table["group"] == "all")]
    own = own[(own["threat"] == THREAT) & (own["attack"] != WORST)]
    return str(own.groupby("attack")["attack_success_rate"].mean().idxmax())


def _three(row: object, stem: str) -> str:
    assert isinstance(row, dict)
    low, high = row.get(f"{stem}_ci_low"), row.get(f"{stem}_ci_high")
    bounds = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * row[f'{stem}_mean']:.1f} %{bounds}"


_FIGURES: tuple[tuple[tuple[str, ...], Callable[[Folder], Figure]], ...] = (
    (("adversarial training",), _adversarial_training),
    (("adversarial training", "fast adversarial training"), _fast_training),
    (("distillation",), _distillation),
    (("hybrid",), _hybrid),
    (("randomized smoothing",), _smoothing),
    (("lipschitz",), _lipschitz),
    ((), _missed),
)
_STUDIED: tuple[tuple[str, str, Callable[[Folder], Figure]], ...] = (
    ("certification", "interval training", _certified),
    ("certification", _SMOOTHED, _smoothed_curve),
    ("detection", "none", _detected),
    ("detection", "none", _latency),
)
