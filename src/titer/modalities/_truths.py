"""The truths of rows for each task: a class, several findings, a measured value, or a mask of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from titer.core.errors import SpecError
from titer.core.outputs import Output
from titer.core.record import ClinicalData, Samples

Listed = Callable[[Sequence[object]], str]
_DEFAULT_VALUE = ("value",)
_DEFAULT_MASK = ("background", "lesion")
_FEWEST = {"classes": 2, "labels": 1, "value": 1, "mask": 2}
_NAMES = {
    "classes": "two or more different names",
    "labels": "different names, one a finding",
    "value": "the one name of what is measured",
    "mask": "two or more different names, the background first",
}


class Truths(NamedTuple):
    """`y` in the form of the task, the names of what it tells, and the rows that are wrong, in words."""

    y: np.ndarray
    names: tuple[str, ...]
    problems: list[str]


def check_task(
    task: Output, names: tuple[str, ...] | None, positive: str | None, tolerance: float | None, where: str = "data"
) -> None:
    """Refuse settings that do not fit the task, before any file is read."""
    check_names(task, names, where)
    if positive is not None and task != "classes":
        raise SpecError(
            f"{where}.positive = {positive!r} is not allowed with task = {task!r}: allowed with 'classes' only"
        )
    if tolerance is not None and task != "value":
        raise SpecError(
            f"{where}.tolerance = {tolerance:g} is not allowed with task = {task!r}: allowed with 'value' only"
        )
    if tolerance is None and task == "value":
        raise SpecError(
            f"{where}.tolerance is missing: task = 'value' needs the largest error that does no harm, in its unit"
        )


def check_names(task: Output, names: tuple[str, ...] | None, where: str = "data") -> None:
    """Refuse names that are too few, too many, empty or doubled for the task."""
    if names is None:
        return
    if len(names) < _FEWEST[task] or "" in names or len(set(names)) != len(names) or (task == "value" and names[1:]):
        raise SpecError(f"{where}.classes = {list(names)!r} is not allowed: {_NAMES[task]}")


def findings(values: np.ndarray, names: tuple[str, ...] | None, rows: Sequence[str], listed: Listed) -> Truths:
    """Return int64[N, L] of findings: each of [N, L] values is 0, absent, or 1, present."""
    _check_numbers(values)
    if values.ndim != 2:
        raise SpecError(f"data.labels has the shape {values.shape}: allowed with task = 'labels' is [N, findings]")
    names = names or tuple(f"finding {i + 1}" for i in range(values.shape[1]))
    if len(names) != values.shape[1]:
        raise SpecError(f"data.classes has {len(names)} names: labels has {values.shape[1]} findings")
    wrong = [f"{rows[i]} ({values[i, j]:g})" for i, j in _first_wrong((values != 0) & (values != 1))]
    problems = [f"data.labels is neither 0 nor 1 in {listed(wrong)}"] if wrong else []
    return Truths(np.where(values == 1, 1, 0).astype(np.int64), names, problems)


def value(values: np.ndarray, names: tuple[str, ...] | None, rows: Sequence[str], listed: Listed) -> Truths:
    """Return float32[N] of measured values, from [N] or [N, 1]."""
    _check_numbers(values)
    if values.size != len(values):
        raise SpecError(f"data.labels has the shape {values.shape}: allowed with task = 'value' is one value a row")
    flat = values.reshape(-1).astype(np.float32)
    wrong = [rows[int(i)] for i in np.flatnonzero(~np.isfinite(flat))]
    problems = [f"data.labels is NaN or infinite in {listed(wrong)}; every row needs a value"] if wrong else []
    return Truths(flat, names or _DEFAULT_VALUE, problems)


def mask(
    values: np.ndarray, names: tuple[str, ...] | None, rows: Sequence[str], sides: tuple[int, ...], listed: Listed
) -> Truths:
    """Return int64[N, H, W] of masks: the index of each pixel's class, 0 the background."""
    _check_numbers(values)
    shaped = values[..., 0] if values.ndim == len(sides) + 2 and values.shape[-1] == 1 else values
    if len(sides) < 2 or shaped.shape[1:] != sides:
        allowed = f"[N, {', '.join(map(str, sides))}]" if len(sides) > 1 else "masks of images"
        raise SpecError(f"data.labels has the shape {values.shape}: allowed with task = 'mask' is {allowed}")
    largest = float(shaped.max()) if shaped.size else 0.0
    if names is None and largest > 1:
        raise SpecError(
            f"data.labels has values up to {largest:g}: store 0 and 1, or name what each number means with 'classes', "
            "the background first"
        )
    names = names or _DEFAULT_MASK
    outside = (shaped < 0) | (shaped >= len(names)) | (shaped != np.round(shaped))
    wrong = [f"{rows[place[0]]} ({shaped[place]:g})" for place in _first_wrong(outside)]
    allowed = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    problems = [f"data.labels is no class of the mask in {listed(wrong)}; allowed are {allowed}"] if wrong else []
    return Truths(np.where(outside, 0, shaped).astype(np.int64), names, problems)


def untellable(data: ClinicalData, y: Tensor) -> Tensor:
    """Return bool[N]: what is told of the row is nothing that the data set can tell."""
    if data.output == "value":
        return ~y.isfinite()
    count = 2 if data.output == "labels" else len(data.classes)
    return ((y < 0) | (y >= count)).reshape(len(y), -1).any(1)


def unlearnable(data: ClinicalData, where: str) -> list[str]:
    """Return what no network could learn: a finding or a pixel class that training never shows, one value for all."""
    name, part = ("pool", data.pool) if data.pool is not None else ("train", data.fixed["train"])
    return [f"{where}.{name} {problem}" for problem in _one_sided(data, part)] if len(part) else []


def _one_sided(data: ClinicalData, part: Samples) -> list[str]:
    y = part.y
    if data.output == "value":
        return (
            [] if bool((y != y[0]).any()) else [f"has the value {float(y[0]):g} in every row: nothing can be learned"]
        )
    if data.output == "labels":
        present = y.sum(0)
        return [
            f"has {finding} in {'no' if not count else 'every'} row: a finding needs rows with it and without it"
            for finding, count in zip(data.classes, present.tolist(), strict=True)
            if count in (0, len(y))
        ]
    return [f"has no pixel of class {label}" for i, label in enumerate(data.classes) if not bool((y == i).any())]


def _first_wrong(wrong: np.ndarray) -> list[tuple[int, ...]]:
    """Return the place of the first wrong value of each row."""
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))
    places = [np.argwhere(wrong[row])[0] for row in rows]
    return [(int(row), *map(int, place)) for row, place in zip(rows, places, strict=True)]


def _check_numbers(values: np.ndarray) -> None:
    if values.dtype.kind not in "biuf":
        raise SpecError(f"data.labels holds values of type {values.dtype.name}: allowed are whole and real numbers")
