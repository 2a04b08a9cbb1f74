"""Tables of measures as inputs of a model: form, names and ranges, against what the training part looked like.

A contract holds of each column the place and spread that it had in training, and of a row how many of its columns may
lie outside at once. It holds no row.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from titer.guard.checks.rule import EVASION
from titer.guard.records import Finding, Outcome

FORM, ROWS, COLUMNS = "matrix-form", "matrix-rows", "matrix-columns"
_MOST = 100
_MOST_BYTES = 1 << 30
_FAR = 4.0
"""Robust standard deviations that a value of a column may lie away."""
_TIMES = 3.0
"""So many times the share of far columns that the worst row of training had makes a row strange."""
_LEAST_SHARE = 0.02
_SHIFT = 4.0
_FEWEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What rows of a model's input look like: float64[F] of F columns."""

    names: tuple[str, ...]
    middle: np.ndarray
    spread: np.ndarray
    whole: bool
    share: float


def contract_of(names: Sequence[str], values: np.ndarray) -> Contract:
    """Learn a contract from a training part, float[N, F]."""
    middle = np.median(values, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(values - middle), axis=0), 0.25 * values.std(0))
    spread = np.maximum(spread, 1e-6 * max(1.0, float(np.abs(values).max())))
    far = (np.abs(values - middle) > _FAR * spread).mean(1)
    whole = bool(((values >= 0) & (values == np.rint(values))).all())
    return Contract(names=tuple(names), middle=middle, spread=spread, whole=whole, share=float(far.max()))


def check_matrix(values: np.ndarray, contract: Contract, names: Sequence[str] | None = None) -> list[Finding]:
    """Return what is wrong with float[N, F], nothing where all is well.

    Args:
        values: rows of measures.
        contract: of the model.
        names: of the columns, which must be the contract's in its order; None where the input has none.
    """
    wide = len(contract.names)
    if values.ndim != 2 or values.shape[1] != wide:
        return [_form(f"shape {list(values.shape)}, not [rows, {wide}]", {"shape": list(values.shape)})]
    if names is not None and tuple(names) != contract.names:
        return [_names(names, contract.names)]
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        return [_form(f"row {r + 1}, column {c + 1}: not a finite number", {"row": int(r) + 1, "column": int(c) + 1})
                for r, c in bad[:_MOST]]  # fmt: skip
    return [*_domain(values, contract), *_rows(values, contract), *_columns(values, contract)]


def check_table(path: Path, contract: Contract, others: Sequence[str] = ()) -> list[Finding]:
    """Return what is wrong with a CSV file (or gzip) of one row a sample, its name first.

    Args:
        path: the file; no more than a GiB.
        contract: of the model.
        others: columns that may stand beside the contract's: labels and other text.

    Raises:
        OSError: the file cannot be read from disk.
    """
    try:
        names, rows, problems = _read(path)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, ValueError, csv.Error) as error:
        return [_form(f"it is no CSV file: {str(error)[:80]}", {})]
    left_out = set(others)
    kept = [i for i, name in enumerate(names) if i and name not in left_out]
    if tuple(names[i] for i in kept) != contract.names:
        return [_names([names[i] for i in kept], contract.names)]
    values, bad = _numbers(rows, kept, names)
    problems += bad
    if problems or not len(values):
        return problems[:_MOST] or [_form("it holds no rows", {})]
    return check_matrix(values, contract)


def check_array(values: np.ndarray, shape: Sequence[int], low: float, high: float) -> list[Finding]:
    """Return what is wrong with an array input (images, ECG): its shape after the first axis, numbers, range."""
    if list(values.shape[1:]) != list(shape):
        return [
            _form(
                f"shape {list(values.shape)}, not [rows, {', '.join(map(str, shape))}]", {"shape": list(values.shape)}
            )
        ]
    found = []
    for row, one in enumerate(values, start=1):
        if not np.isfinite(one).all():
            found.append(_form(f"row {row}: not finite", {"row": row}))
        elif one.size and (one.min() < low or one.max() > high):
            found.append(_form(f"row {row}: values outside {low:g} to {high:g}", {"row": row}))
    return found[:_MOST]


def _domain(values: np.ndarray, contract: Contract) -> list[Finding]:
    """Counts are whole numbers from 0 on."""
    bad = np.argwhere((values < 0) | (values != np.rint(values))) if contract.whole else ()
    return [
        _form(f"row {r + 1}, column {c + 1}: no count", {"row": int(r) + 1, "column": int(c) + 1})
        for r, c in bad[:_MOST]
    ]


def _rows(values: np.ndarray, contract: Contract) -> list[Finding]:
    """A row of which many columns lie far from where they lie in training: scaled, of another platform, shifted."""
    far = (np.abs(values - contract.middle) > _FAR * contract.spread).mean(1)
    allowed = max(_TIMES * contract.share, _LEAST_SHARE)
    return [
        Finding(
            rule=ROWS,
            outcome=Outcome.FLAG,
            reason=f"row {row + 1} lies far from the training part in many columns",
            evidence={"row": int(row) + 1, "share": round(float(far[row]), 4), "allowed": round(allowed, 4)},
            threats=EVASION,
        )
        for row in np.flatnonzero(far > allowed)[:_MOST]
    ]


def _columns(values: np.ndarray, contract: Contract) -> list[Finding]:
    """Two columns that lie where the other one lay in training: their names were exchanged."""
    if len(values) < _FEWEST:
        return []
    middle = np.median(values, axis=0)
    shift = np.abs(middle - contract.middle) / contract.spread
    common = float(np.median(shift))
    found = []
    for first in np.flatnonzero(shift > _SHIFT * max(common, 0.25)):
        others = (
            np.abs(middle[first] - contract.middle) / contract.spread
            + np.abs(middle - contract.middle[first]) / contract.spread[first]
        )
        others[first] = math.inf
        second = int(others.argmin())
        if (
            others[second] < (shift[first] + shift[second]) / 2
            and shift[second] > _SHIFT * max(common, 0.25)
            and first < second
        ):
            names = (contract.names[first], contract.names[second])
            found.append(
                Finding(
                    rule=COLUMNS,
                    outcome=Outcome.FLAG,
                    threats=EVASION,
                    reason=f"columns {names[0][:40]} and {names[1][:40]} lie where the other one lay in training",
                    evidence={"columns": [int(first) + 1, second + 1]},
                )
            )
    return found[:_MOST]


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], list[Finding]]:
    """Return the header, the rows with their lines, and lines of another width."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("more than a GiB")
    reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    names = next(reader, [])
    if len(set(names)) < len(names):
        raise ValueError("a column stands twice")
    rows, problems = [], []
    for row in reader:
        if len(row) == len(names):
            rows.append((reader.line_num, row))
        elif row:
            problems.append(
                _form(f"line {reader.line_num}: {len(row)} values, not {len(names)}", {"line": reader.line_num})
            )
    return names, rows, problems


def _numbers(
    rows: Sequence[tuple[int, list[str]]], kept: Sequence[int], names: Sequence[str]
) -> tuple[np.ndarray, list[Finding]]:
    values = np.empty((len(rows), len(kept)))
    problems: list[Finding] = []
    for row, (line, fields) in enumerate(rows):
        for column, place in enumerate(kept):
            try:
                values[row, column] = float(fields[place])
            except ValueError:
                values[row, column] = math.nan
            if not math.isfinite(values[row, column]) and len(problems) < _MOST:
                problems.append(
                    _form(
                        f"line {line}, column {names[place][:40]}: no finite number",
                        {"line": line, "column": place + 1},
                    )
                )
    return values, problems


def _names(given: Sequence[str], wanted: Sequence[str]) -> Finding:
    place = next(
        (i for i, (one, other) in enumerate(zip(given, wanted, strict=False)) if one != other),
        min(len(given), len(wanted)),
    )
    told = given[place][:40] if place < len(given) else "nothing"
    expected = wanted[place][:40] if place < len(wanted) else "nothing"
    return _form(
        f"column {place + 1} is {told}, not {expected}: columns must be those of the model, in its order",
        {"column": place + 1},
    )


def _form(reason: str, evidence: dict[str, object]) -> Finding:
    return Finding(rule=FORM, outcome=Outcome.BLOCK, reason=reason, evidence=evidence, threats=EVASION)
