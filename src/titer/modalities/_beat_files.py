"""Files of beats that are cut already: .npz, and CSV with one beat a line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from titer.core.errors import SpecError, nearest
from titer.modalities._checks import (
    check_patient_values,
    check_patients,
    class_names,
    class_numbers,
    listed,
    part_names,
    refuse,
    samples,
)
from titer.modalities._files import Arrays, read_npz
from titer.modalities._signals import Beats, Recorder, thinned

_COLUMNS = ("patient_id", "record", "sex", "age", "site", "split")
_PLACE = re.compile(r"[A-Za-z_]*\d+")
_LINES = 200
"""Lines that are read at once: memory holds these as text, and the beats kept so far."""

_FEWEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Beats as the file has them: `x` [N, leads, samples], labels and columns as text, and each row's name."""

    x: np.ndarray
    labels: list[str]
    columns: dict[str, list[str]]
    rows: list[str]


def read_beats(path: Path, given: Recorder, most: int | None) -> Beats:
    """Return the beats of an .npz or CSV file, at most so many of each class and record.

    Args:
        path: the file; its ending says which form it has.
        given: what the plan says of the recorder; a rate of 0 and no leads are not said.
        most: at most so many beats of each class of each record.

    Raises:
        SpecError: the file is damaged, lacks something, or holds what is no number; named by row or line.
    """
    if path.suffix.lower() == ".npz":
        table, recorder = _from_npz(read_npz(path, "data.file"), given)
    elif path.suffix.lower() == ".csv":
        if not given.rate:
            raise SpecError("data.rate is missing: a CSV file does not state its samples a second, as in rate = 360")
        table, recorder = _from_csv(path), replace(given, leads=given.leads or ("lead 1",))
    else:
        raise SpecError(f"data.file = {str(path)!r} is not allowed: its name ends in .npz or .csv")
    return _assembled(table, recorder, most)


def _assembled(table: _Table, recorder: Recorder, most: int | None) -> Beats:
    if table.x.ndim != 3 or table.x.shape[1] != len(recorder.leads) or table.x.shape[2] < _FEWEST:
        raise SpecError(
            f"data.file has beats of the shape {table.x.shape[1:]}: allowed are {len(recorder.leads)} lead(s) by "
            f"{_FEWEST} samples or more, as [N, samples] or [N, leads, samples]"
        )
    broken = [table.rows[int(i)] for i in np.flatnonzero(~np.isfinite(table.x).reshape(len(table.x), -1).all(1))]
    if broken:
        raise SpecError(f"data.file has values that are NaN or infinite in {listed(broken)}; allowed are numbers in mV")
    check_patients([name for name in table.columns if name != "record"])
    owner = table.columns.get("record", table.columns.get("patient_id", table.rows))
    patients = table.columns.get("patient_id", owner)
    classes = class_names(table.labels)
    numbers, problems = class_numbers(table.labels, classes, table.rows)
    problems += check_patient_values(patients, table.rows)
    parts: Sequence[str] | None = None
    if "split" in table.columns:
        parts, wrong = part_names(table.columns["split"], table.rows)
        problems += wrong
    refuse(problems)
    kept = thinned(numbers, np.array(owner), most)

    def some(values: Sequence[str]) -> list[str]:
        return [values[int(i)] for i in kept]

    return Beats(
        rows=samples(
            table.x[kept],
            numbers[kept],
            ids=some(table.rows),
            patients=some(patients),
            columns={name: some(values) for name, values in table.columns.items()},
        ),
        classes=classes,
        recorder=recorder,
        parts=None if parts is None else some(parts),
    )


def _from_npz(content: Arrays, given: Recorder) -> tuple[_Table, Recorder]:
    x, labels = _needed(content, "beats", "x"), _needed(content, "labels", "y")
    if x.dtype.kind not in "iuf" or x.ndim not in (2, 3):
        raise SpecError(
            f"data.file has beats of type {x.dtype.name} and shape {x.shape}: allowed are numbers in mV, [N, samples] "
            "or [N, leads, samples]"
        )
    x = x[:, None] if x.ndim == 2 else x
    columns = {name: content[name] for name in _COLUMNS if name in content}
    for name, values in {"labels": labels, **columns}.items():
        if values.ndim == 0 or values.size != len(values) or len(values) != len(x):
            raise SpecError(f"data.file has {name} of the shape {values.shape}: allowed is one value a beat ({len(x)})")
    rate = _stated(content, "rate", given.rate)
    leads = given.leads or tuple(_texts(content["leads"])) if "leads" in content else given.leads
    table = _Table(
        x=x.astype(np.float32),
        labels=_texts(labels),
        columns={name: _texts(values) for name, values in columns.items()},
        rows=[f"beat_{i:06d}" for i in range(len(x))],
    )
    return table, replace(given, rate=rate, leads=leads or tuple(f"lead {i + 1}" for i in range(x.shape[1])))


def _needed(content: Arrays, *names: str) -> np.ndarray:
    found = [name for name in names if name in content]
    if len(found) != 1:
        raise SpecError(
            f"data.file holds {'both' if found else 'neither'} {' and '.join(names)}: one of them is needed; it holds "
            f"{listed(sorted(content)) or 'nothing'}"
        )
    return content[found[0]]


def _stated(content: Arrays, key: str, given: float) -> float:
    """Return the rate of the file; SpecError where plan and file differ, or neither says."""
    stated = content.get(key)
    if stated is None:
        if not given:
            raise SpecError(f"data.rate is missing: the file has no array {key!r}, as in rate = 360")
        return given
    if stated.dtype.kind not in "iuf" or stated.size != 1 or not 0 < float(stated.reshape(())) < float("inf"):
        raise SpecError(f"data.file has {key} = {str(stated)[:40]}: allowed is one positive number, samples a second")
    own = float(stated.reshape(()))
    if given and own != given:
        raise SpecError(f"data.file is sampled at {own:g} Hz: data.rate = {given:g} is another rate")
    return own


def _texts(values: np.ndarray) -> list[str]:
    flat = cast("list[object]", values.reshape(-1).tolist())
    return [(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)).strip() for one in flat]


def _from_csv(path: Path) -> _Table:
    """Return the beats of a CSV file, read some lines at a time; samples are the columns that end in a number."""
    x, labels, line = [], list[str](), 2
    columns: dict[str, list[str]] = {}
    for frame in _frames(path):
        names = [str(name).strip() for name in frame.columns]
        frame.columns = pd.Index(names)
        places = _sample_columns(names)
        x.append(_numbers(frame, places, line))
        labels += _stripped(frame["label"])
        for name in _COLUMNS:
            if name in names:
                columns.setdefault(name, []).extend(_stripped(frame[name]))
        others = [name for name in names if name not in places and name not in _COLUMNS]
        check_patients(["patient_id"] if "patient_id" in names else others)
        line += len(frame)
    if not x:
        raise SpecError(f"data.file = {str(path)!r} holds no beats: one line a beat is needed")
    whole = np.concatenate(x)
    return _Table(x=whole[:, None], labels=labels, columns=columns, rows=[f"line {i}" for i in range(2, line)])


def _stripped(column: pd.Series[str]) -> list[str]:
    # Not by .str, which ties a knot with its column: lines that were read would stay until the next collection.
    return [text.strip() for text in column]


def _sample_columns(names: list[str]) -> list[str]:
    if "label" not in names:
        raise SpecError(f"data.file has no column 'label': its columns are {listed(names)}{nearest('label', names)}")
    places = [name for name in names if _PLACE.fullmatch(name)]
    if len(places) < _FEWEST:
        raise SpecError(
            f"data.file has {len(places)} columns of samples: {_FEWEST} or more are needed, named 0, 1, 2 ... or with "
            "letters before the number"
        )
    return places


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    """Yield the lines of a CSV file as text, some at a time."""
    if not path.is_file():
        raise SpecError(f"data.file = {str(path)!r}: no such file")
    try:
        with warnings.catch_warnings():
            # A line with too many values is a warning to pandas, which then drops some of them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            with pd.read_csv(
                path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig", chunksize=_LINES
            ) as parts:
                yield from (part.fillna("") for part in parts if len(part))
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise SpecError(f"data.file = {str(path)!r} is not a CSV file in UTF-8 with a header: {reason}") from None


def _numbers(frame: pd.DataFrame, places: list[str], line: int) -> np.ndarray:
    """Return float32[n, samples]; SpecError naming line and column of the first values that are no finite number."""
    texts = frame[places]
    values: np.ndarray = texts.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        named = [f"line {line + row}, column {places[column]} ({texts.iloc[row, column]!r})" for row, column in wrong]
        raise SpecError(f"data.file has values that are no finite number: {listed(named)}; allowed are numbers in mV")
    return np.asarray(values, dtype=np.float32)
