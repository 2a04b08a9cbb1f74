"""The statistics file as tables for reading: every comparison with its corrected p, effect size, power and interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from titer.report.format import NBSP, UNKNOWN, general, interval, number, p_value, percent, points
from titer.report.study import Study
from titer.report.tables import Table, settings

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


def statistics_tables(statistics: Row, study: Study) -> tuple[Table, ...]:
    """Return the tables of the statistics section; those without a row are left out."""
    names = _names(study)
    pairs = [{**row, **pair} for row in statistics.get("across_defenses") or [] for pair in row.get("pairs") or []]
    overall = [column for column in names if column[0] != "Defence"]
    found = (
        _table(
            "Attack success with a defence less without it, paired", _VERSUS, names, statistics.get("versus_undefended")
        ),
        _table("Accuracy under attack less without it, paired", _BEFORE_AFTER, names, statistics.get("before_after")),
        _table(
            "Accuracy across defences: one test for all",
            _ACROSS,
            overall,
            statistics.get("across_defenses"),
        ),
        _table("Accuracy across defences: pairs (first less second)", _pairs(study), overall, pairs),
        _table(
            "Inputs that fooled the undefended model: share the defended model gets right",
            _TRANSFER,
            names,
            statistics.get("transfer"),
        ),
        _summary(statistics.get("summary"), names),
    )
    return tuple(table for table in found if table.rows)


def protocol_lines(protocol: Any) -> tuple[tuple[str, str], ...]:
    """Return the protocol as (name, description): methods with their references, then the settings and notes."""
    if not isinstance(protocol, Mapping):
        return ()
    lines = [
        (str(one.get("name")), f"{one.get('use')}. {settings(one.get('settings'))}. {one.get('reference')}.")
        for one in protocol.get("methods") or []
        if isinstance(one, Mapping)
    ]
    rest = [(str(key).replace("_", " "), settings(v)) for key, v in protocol.items() if key not in ("methods", "notes")]
    notes = [("note", str(note)) for note in protocol.get("notes") or []]
    return tuple(lines + rest + notes)


def _table(caption: str, columns: Iterable[Column], names: list[Column], rows: Any) -> Table:
    every = [*names, *columns]
    cells = tuple(tuple(read(row) for _, read in every) for row in rows or [])
    return Table(caption, tuple(heading for heading, _ in every), cells, len(names))


def _names(study: Study) -> list[Column]:
    model: list[Column] = [("Model", lambda row: str(row.get("model")))] if len(study.models) > 1 else []
    return [
        *model,
        ("Defence", lambda row: study.defense_title(str(row.get("defense")))),
        (
            "Attack",
            lambda row: "no attack" if row.get("attack") == "none" else study.attack_title(str(row.get("attack"))),
        ),
        ("Threat", lambda row: "–" if row.get("threat") == "none" else str(row.get("threat")).replace(" ", NBSP)),
    ]


def _difference(row: Row) -> str:
    low, high = row.get("ci_low"), row.get("ci_high")
    bounds = (
        f" ({points(low).split()[0]}{NBSP}to{NBSP}{points(high).split()[0]})"
        if low is not None and high is not None
        else ""
    )
    return points(row.get("mean_difference")) + bounds


def _test(row: Row) -> str:
    name = row.get("test") or UNKNOWN
    return f"{name} ({row['reason']})" if row.get("reason") else str(name)


def _share(key: str) -> Callable[[Row], str]:
    return lambda row: percent(row.get(key))


def _p(key: str) -> Callable[[Row], str]:
    return lambda row: p_value(row.get(key))


def _number(key: str) -> Callable[[Row], str]:
    return lambda row: number(row.get(key))


def _with_bounds(stem: str) -> Callable[[Row], str]:
    def read(row: Row) -> str:
        bounds = interval(row.get(f"{stem}_ci_low"), row.get(f"{stem}_ci_high"))
        return percent(row.get(f"{stem}_mean")) + (f" ({bounds})" if bounds != UNKNOWN else "")

    return read


def _mcnemar(row: Row) -> str:
    if row.get("mcnemar_lost") is None:
        return UNKNOWN
    return f"{row['mcnemar_lost']} lost, {row.get('mcnemar_gained')} gained"


_PAIRED: tuple[Column, ...] = (
    ("Difference (95 % CI)", _difference),
    ("Shapiro-Wilk p", _p("shapiro_p")),
    ("Test over trials", _test),
    ("p, Holm", _p("p_holm")),
    ("d_z", _number("d_z")),
    ("d pooled", _number("d_pooled")),
    ("Power", lambda row: percent(row.get("power"))),
    ("Trials needed", lambda row: general(row.get("n_needed"))),
    ("McNemar, first trial", _mcnemar),
    ("p, Holm", _p("mcnemar_p_holm")),
    ("median p", _p("mcnemar_median_p")),
)
_BEFORE_AFTER: tuple[Column, ...] = (
    ("Without", _share("clean_mean")),
    ("Under attack", _share("attacked_mean")),
    *_PAIRED,
)
_VERSUS: tuple[Column, ...] = (
    ("Undefended", _share("attack_success_rate_undefended")),
    ("Defended", _share("attack_success_rate_defended")),
    ("Relative reduction (95 % CI)", _with_bounds("relative_reduction")),
    ("Clean accuracy", lambda row: points(_hundredth(row.get("clean_accuracy_change_points_mean")))),
    *_PAIRED,
)
_TRANSFER: tuple[Column, ...] = (
    ("Fooled per trial", lambda row: general(row.get("n_fooled_per_trial"))),
    ("Right, attacker does not adapt", _with_bounds("recovered")),
    ("Right, attacker adapts", _with_bounds("adaptive")),
    ("Clean accuracy kept", _with_bounds("clean_accuracy_kept")),
)
_ACROSS: tuple[Column, ...] = (
    (
        "Test",
        lambda row: f"{row.get('omnibus_test') or UNKNOWN}" + (f" ({row['reason']})" if row.get("reason") else ""),
    ),
    ("Statistic", _number("statistic")),
    ("p", _p("p")),
    ("p, Holm", _p("p_holm")),
    ("Eta squared", _number("eta_squared")),
    ("Kendall’s W", _number("kendalls_w")),
    ("Power", lambda row: percent(row.get("power"))),
)


def _pairs(study: Study) -> tuple[Column, ...]:
    return (
        ("First", lambda row: study.defense_title(str(row.get("a")))),
        ("Second", lambda row: study.defense_title(str(row.get("b")))),
        ("Difference (95 % CI)", _difference),
        ("Test", lambda row: str(row.get("pair_test") or UNKNOWN)),
        ("p, corrected", _p("p_corrected")),
        ("Cohen’s d", _number("cohens_d")),
        ("Significant", lambda row: {True: "yes", False: "no"}.get(row.get("significant"), UNKNOWN)),
    )


def _summary(rows: Any, names: list[Column]) -> Table:
    """Return mean, SD and both intervals of accuracy and attack success."""
    shown = [row for row in rows or [] if row.get("metric") in ("accuracy", "attack_success_rate")]
    columns: tuple[Column, ...] = (
        ("Attack searched on", lambda row: str(row.get("source"))),
        ("Metric", lambda row: str(row.get("metric")).replace("_", " ")),
        ("Trials", lambda row: general(row.get("n_trials"))),
        ("Mean", _share("mean")),
        ("SD", _share("sd")),
        ("95 % CI over trials", lambda row: interval(row.get("ci_low"), row.get("ci_high"))),
        ("95 % CI over patients", lambda row: interval(row.get("pooled_ci_low"), row.get("pooled_ci_high"))),
        ("Method", lambda row: str(row.get("pooled_method") or UNKNOWN)),
    )
    table = _table("Every mean with its intervals; all other metrics are in report.json", columns, names, shown)
    return Table(table.caption, table.headings, table.rows, len(names) + 2)


def _hundredth(value: float | None) -> float | None:
    return None if value is None else value / 100
