"""The ranking of a run's report as Markdown: what the reference's page of defences shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from defense_bench.folder import Folder

_HEAD = ("defence", "verdict", "right under attack", "", "right without", "", "attack success cut by", "training")


def ranking_lines(folder: Folder) -> Iterator[str]:
    """Yield one table for each threat family at its largest budget."""
    for ranking in folder.report["rankings"]:
        rare = f"rarest class ({ranking['rarest']}) under attack" if ranking["rarest"] else ""
        head = [*_HEAD, "inference", *([rare] if rare else [])]
        yield f"\n{ranking['threat']}, worst case, the attacker knows the defence; letters: {ranking['test']}\n"
        yield _line(head)
        yield _line(["---"] * len(head))
        for one in ranking["rows"]:
            yield _line([*_cells(one), *([_estimate(one["rarest"])] if rare else [])])


def _cells(one: Mapping[str, Any]) -> list[str]:
    row = one["row"]
    gain, cost = row["gain"] or {}, row["cost"]
    cut = gain.get("reduction")
    return [
        row["defense"],
        one["judged"] or "the reference",
        _estimate(row["adaptive"]),
        one["letters"],
        _estimate(row["clean"]),
        one["clean_letters"],
        "" if cut is None else f"{100 * cut:.0f} %",
        "" if cost["training_ratio"] is None else f"{cost['training_ratio']:.2f} x",
        "" if cost["inference_ratio"] is None else f"{cost['inference_ratio']:.2f} x",
    ]


def _estimate(one: Mapping[str, float | None]) -> str:
    mean, low, high = one["mean"], one["low"], one["high"]
    if mean is None:
        return ""
    return f"{100 * mean:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
