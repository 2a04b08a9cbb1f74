"""What every loader checks, so that a wrong data set is refused in one message and nothing runs on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from titer.core.errors import SpecError, unknown
from titer.core.record import ClinicalData, Samples
from titer.core.threat import Region
from titer.modalities._truths import unlearnable, untellable

MISSING = "unknown"
_AGE_BANDS = ((18, "0-17"), (40, "18-39"), (65, "40-64"), (200, "65+"))
_SHOWN = 10
PARTS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""What a data set may call its parts, and what they are called here."""

_PIECE = 4 * 2**20
"""Bytes of rows that are checked at once: a check of all rows would need as much memory as the data."""

_LIKE_PATIENT = {"patient", "patients", "patientid", "patientids", "subject", "subjectid"}


def listed(items: Sequence[object]) -> str:
    """Return the items separated by commas; of a long list the first ones and how many more there are."""
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"


def age_band(age: object) -> str:
    """Return the band of an age in years; `unknown` where it is missing or no number."""
    try:
        years = float(str(age))
    except ValueError:
        return MISSING
    return next((name for limit, name in _AGE_BANDS if 0 <= years < limit), MISSING)


def group_columns(columns: Mapping[str, Sequence[object]]) -> dict[str, tuple[str, ...]]:
    """Return the subgroup columns `sex`, `age_band` (from `age`) and `site` that are there, as text."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in ("sex", "age", "site"):
        if name in columns:
            values = columns[name]
            if name == "age":
                groups["age_band"] = tuple(age_band(value) for value in values)
            else:
                groups[name] = tuple(_text(value) for value in values)
    return groups


def _text(value: object) -> str:
    text = str(value).strip()
    return MISSING if text.lower() in ("", "nan", "none", "<na>") else text


def samples(
    x: np.ndarray,
    labels: np.ndarray,
    *,
    ids: Sequence[str],
    patients: Sequence[str],
    columns: Mapping[str, Sequence[object]] | None = None,
) -> Samples:
    """Return rows as Samples: `x` [N, ...] in raw units, `labels` [N, ...]: whole numbers, or real ones of a value."""
    kind = np.float32 if labels.dtype.kind == "f" else np.int64
    return Samples(
        x=torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
        y=torch.from_numpy(np.ascontiguousarray(labels, dtype=kind)),
        ids=tuple(map(str, ids)),
        patients=tuple(map(str, patients)),
        groups=group_columns(columns or {}),
    )


def failing(holds: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> list[int]:
    """Return the rows of x [N, ...] where `holds`, [n, ...] -> bool[n], is False; a few rows are checked at a time."""
    rows = max(1, _PIECE // max(1, x[:1].numel() * x.element_size()))
    pieces = (holds(piece) for piece in x.split(rows))
    return [place * rows + row for place, piece in enumerate(pieces) for row in _rows(~piece)]


def checked(data: ClinicalData, where: str = "data") -> ClinicalData:
    """Return the data, or raise one SpecError that lists everything wrong with it."""
    problems: list[str] = []
    for name, part in data.parts().items():
        problems += _part_problems(data, part, f"{where}.{name}")
    problems += _shared_patients(data, where)
    problems += _lone_classes(data, where) if data.output == "classes" else unlearnable(data, where)
    if problems:
        raise SpecError("; ".join(problems))
    return data


def _part_problems(data: ClinicalData, part: Samples, where: str) -> list[str]:
    if not len(part):
        return [f"{where} holds no rows: at least one of each class is needed"]
    problems, classes = [], data.output == "classes"
    wrong = [f"{part.ids[i]} has {int(part.y[i])}" if classes else part.ids[i] for i in _rows(untellable(data, part.y))]
    if wrong:
        allowed = ", ".join(f"{i} ({name})" for i, name in enumerate(data.classes))
        what = f"outside the classes: {listed(wrong)}; allowed are {allowed}"
        problems.append(f"{where}.label is {what if classes else f'no {data.output} that can be: {listed(wrong)}'}")
    twice = sorted(one for one, count in Counter(part.ids).items() if count > 1)
    if twice:
        problems.append(f"{where} holds sample ids twice: {listed(twice)}")
    broken = [part.ids[i] for i in failing(lambda x: x.flatten(1).isfinite().all(1), part.x)]
    if broken:
        problems.append(f"{where} has values that are NaN or infinite in {listed(broken)}; allowed are finite numbers")
        return problems
    for rule in data.domain:
        outside = [part.ids[i] for i in failing(partial(_within, rule), part.x)]
        if outside:
            problems.append(f"{where} breaks its own domain rule '{rule.describe()}' in {listed(outside)}")
    return problems


def _within(rule: Region, x: torch.Tensor) -> torch.Tensor:
    return rule.contains(x, x)


def _rows(mask: torch.Tensor) -> list[int]:
    return [int(i) for i in mask.nonzero().flatten()]


def _shared_patients(data: ClinicalData, where: str) -> list[str]:
    names = list(data.fixed)
    problems = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(set(data.fixed[first].patients) & set(data.fixed[second].patients))
            if both:
                problems.append(
                    f"{where}.patient_id: {listed(both)} stand in both {first} and {second}; "
                    "a patient may stand in one part only"
                )
    return problems


def _lone_classes(data: ClinicalData, where: str) -> list[str]:
    problems = []
    for name, part in data.parts().items():
        absent = [label for i, label in enumerate(data.classes) if not bool((part.y == i).any())]
        if len(part) and absent:
            problems.append(f"{where}.{name} holds no row of class {listed(absent)}; every part needs every class")
    return problems


def refuse(problems: Sequence[str]) -> None:
    """Raise one SpecError with all the problems; nothing where there are none."""
    if problems:
        raise SpecError("; ".join(problems))


def check_classes(classes: tuple[str, ...] | None, positive: str | None, where: str = "data") -> None:
    """Refuse class names that are too few, empty or doubled, and a positive class that is none of them."""
    if classes is None:
        return
    if len(classes) < 2 or "" in classes or len(set(classes)) != len(classes):
        raise SpecError(f"{where}.classes = {list(classes)!r} is not allowed: two or more different names")
    if positive is not None and positive not in classes:
        raise unknown(f"{where}.positive", positive, classes)


def class_names(labels: Sequence[str], where: str = "data") -> tuple[str, ...]:
    """Return the classes that the labels name: sorted names, or `0` to the largest where all are whole numbers."""
    found = sorted(set(labels) - {""})
    if found and all(_is_number(label) for label in found):
        numbers = [_whole(label) for label in found]
        wrong = [label for label, n in zip(found, numbers, strict=True) if n is None or not 0 <= n < len(labels)]
        if wrong:
            raise SpecError(
                f"{where}.label has {listed(wrong)}: numbers are indices of the classes, whole from 0 to classes - 1; "
                "other numbers are names that the setting 'classes' must list"
            )
        found = [str(i) for i in range(max(n for n in numbers if n is not None) + 1)]
    if len(found) < 2:
        raise SpecError(f"{where}.label names {len(found)} class(es) ({listed(found)}): at least two are needed")
    return tuple(found)


def class_numbers(
    labels: Sequence[str], classes: tuple[str, ...], rows: Sequence[str], where: str = "data"
) -> tuple[np.ndarray, list[str]]:
    """Return int64[N] class indices of labels (names, or indices from 0) and what is wrong with them."""
    index = {name: i for i, name in enumerate(classes)}
    numbers = np.array([index.get(label, _index(label, len(classes))) for label in labels], dtype=np.int64)
    empty = [row for row, label in zip(rows, labels, strict=True) if not label]
    wrong = [f"{label!r} in {row}" for row, label, n in zip(rows, labels, numbers, strict=True) if label and n < 0]
    problems = [f"{where}.label is empty in {listed(empty)}; every row needs a class"] if empty else []
    if wrong:
        allowed = ", ".join(f"{name} ({i})" for i, name in enumerate(classes))
        problems.append(f"{where}.label is outside the classes: {listed(wrong)}; allowed are {allowed}")
    return numbers, problems


def _index(label: str, count: int) -> int:
    number = _whole(label)
    return number if number is not None and 0 <= number < count else -1


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _whole(text: str) -> int | None:
    return int(float(text)) if _is_number(text) and float(text).is_integer() else None


def positive_class(positive: str | None, classes: tuple[str, ...], where: str = "data") -> int | None:
    """Return the index of the positive class; of two classes the last by default, of more none."""
    if positive is None:
        return 1 if len(classes) == 2 else None
    if positive not in classes:
        raise unknown(f"{where}.positive", positive, classes)
    return classes.index(positive)


def check_patients(names: Sequence[str], where: str = "data") -> None:
    """Refuse a column that looks like `patient_id` and is not: unread, it would let patients leak between the parts."""
    if "patient_id" in names:
        return
    for name in names:
        if "".join(c for c in name.lower() if c.isalnum()) in _LIKE_PATIENT:
            raise SpecError(f"{where}.{name} is not read: name it patient_id, so that no patient stands in two parts")


def check_patient_values(values: Sequence[str], rows: Sequence[str], where: str = "data") -> list[str]:
    """Return what is wrong with the patients: a row of nobody could be anybody's."""
    empty = [row for row, value in zip(rows, values, strict=True) if _text(value) == MISSING]
    return [f"{where}.patient_id is empty in {listed(empty)}; every row needs a patient"] if empty else []


def part_names(values: Sequence[str], rows: Sequence[str], where: str = "data") -> tuple[list[str], list[str]]:
    """Return the part of each row by a `split` column, and what is wrong with it."""
    named = [PARTS.get(value.strip().lower(), "") for value in values]
    wrong = [f"{value!r} in {row}" for row, value, part in zip(rows, values, named, strict=True) if not part]
    if wrong:
        return named, [f"{where}.split is unknown: {listed(wrong)}; allowed are train, validation (or val), test"]
    absent = [part for part in ("train", "validation", "test") if part not in named]
    lacking = f"{where}.split names no row {listed(absent)}; all of train, validation, test are needed"
    return named, [lacking] if absent else []


def divided(rows: Samples, parts: Sequence[str] | None) -> tuple[Samples | None, dict[str, Samples]]:
    """Return (pool, fixed parts): all rows as the pool, or each row in the part that `parts` names."""
    if parts is None:
        return rows, {}
    named = np.array(parts)
    return None, {part: rows.take(np.flatnonzero(named == part)) for part in ("train", "validation", "test")}
