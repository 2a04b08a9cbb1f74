"""The report of a case study: one self-contained page, and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from titer.guard.operate.casestudy.plan import HARDENING, MASKING, MONITORS, RATE, READER

_TEMPLATES = Path(__file__).parent / "templates"
_MEASURES = ("accuracy", "sensitivity", "fnr", "flagged", "released_wrong")
PUBLISHED = "10.30574/ijrsra.2025.16.1.2128"
_WORST = "BIM 8/255"
_SMALL = "BIM 0.01 range"


def write(path: Path, results: Mapping[str, Any]) -> Path:
    """Write the page of a case study's results, and return its path."""
    made = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    made.filters.update(share=_share, limits=_limits, number=_number)
    page = made.get_template("casestudy.html.j2").render(
        results=results,
        rows=results["rows"],
        labels=_labels(results),
        measures=_MEASURES,
        beside=beside(results),
        published=PUBLISHED,
        hardening=HARDENING,
        masking=MASKING,
        monitors=[one if isinstance(one, str) else one["name"] for one in MONITORS],
        rate=RATE,
        reader=READER,
    )
    path.write_text(page, encoding="utf-8")
    return path


def _labels(results: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(label for row in results["rows"] for label in row["conditions"]))


def beside(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what the published hospital case reports beside what was measured here: (what, published, here)."""
    row = {one["name"]: one for one in results["rows"]}
    bare, off = row["bare model, no guard"], row["guard, every layer off"]
    hard, watched = row["+ adversarial training"], row["+ monitors"]

    def of(one: Mapping[str, Any], label: str, measure: str) -> str:
        return _share(one["conditions"][label][measure])

    def both(one: Mapping[str, Any], measure: str) -> str:
        return f"{of(one, _SMALL, measure)} at 0.01 of the range, {of(one, _WORST, measure)} at 8/255"

    return [
        ("accuracy, clean", "92.3 %", of(bare, "clean", "accuracy")),
        ("accuracy under BIM, no defence", "63.2 %", both(off, "accuracy")),
        ("missed tumours (FNR), clean to attacked", "+28 points",
         f"{of(off, 'clean', 'fnr')} clean; {both(off, 'fnr')}"),
        ("accuracy under BIM after adversarial training", "85.1 %", both(hard, "accuracy")),
        ("missed tumours after adversarial training", "-33 %", f"{both(off, 'fnr')}; then {both(hard, 'fnr')}"),
        ("model size", "+27 %", _ratio(watched["size_bytes"], off["size_bytes"])),
        ("latency", "1.8x", _times(watched["judging_ms"]["p50"], off["judging_ms"]["p50"])),
        ("memory, guard and worker", "+35 %", _ratio(_memory(watched), _memory(off))),
        ("clean accuracy lost to feature masking", "4 to 6 % (precision)", _masking(results)),
    ]  # fmt: skip


def _memory(row: Mapping[str, Any]) -> float:
    return float(row["memory_mib"]["guard"] + row["memory_mib"]["worker"])


def _ratio(after: float, before: float) -> str:
    return f"{100 * (after / before - 1):+.0f} %"


def _times(after: float, before: float) -> str:
    return f"{after / before:.2f}x (judging with every layer beside judging with none)"


def _masking(results: Mapping[str, Any]) -> str:
    found = results["masking"]
    return f"{_share(found['plain'])} to {_share(found['masked'])} (accuracy, clean, before review)"


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line a row: accuracy clean and under the attacks, and what was flagged."""
    for row in results["rows"]:
        parts = [f"{label} {_share(found['accuracy'])}" for label, found in row["conditions"].items()]
        flagged = row["conditions"]["clean"]["flagged"]
        yield f"{row['name']}: accuracy {', '.join(parts)}; clean flagged {_share(flagged)}"


def _share(found: Mapping[str, Any]) -> str:
    return "-" if found["share"] is None else f"{100 * found['share']:.1f} %"


def _limits(found: Mapping[str, Any]) -> str:
    return "" if found["share"] is None else f"{100 * found['low']:.0f} to {100 * found['high']:.0f}"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
