"""The CSV file that says of each sample of a genotype file its class, patient, subgroups and part."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
)

_SEX = {"gender": "sex"}
"""What tables of genotypes call a subgroup column, and what it is called here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Of N samples: class indices int64[N], patients, columns, names in messages, and parts where `split` stands."""

    classes: tuple[str, ...]
    numbers: np.ndarray
    patients: list[str]
    columns: Mapping[str, list[str]]
    rows: list[str]
    parts: list[str] | None


def read_people(path: Path, sample_column: str, label_column: str, order: Sequence[str]) -> People:
    """Return the rows of the samples in `order`.

    Raises:
        SpecError: not a CSV file; a column is absent; a sample stands nowhere, twice, or only here; a bad label.
    """
    columns = _columns(path)
    for setting, name in (("sample_column", sample_column), ("label_column", label_column)):
        if name not in columns:
            raise SpecError(
                f"data.{setting} = {name!r} is not a column of {str(path)!r}: its columns are "
                f"{listed(list(columns))}{nearest(name, columns)}"
            )
    check_patients(list(columns))
    columns = _ordered(path, columns, columns[sample_column], order)
    rows = [f"sample {name}" for name in order]
    classes = class_names(columns[label_column])
    numbers, problems = class_numbers(columns[label_column], classes, rows)
    patients = columns.get("patient_id", list(order))
    problems += check_patient_values(patients, rows)
    parts = None
    if "split" in columns:
        parts, wrong = part_names(columns["split"], rows)
        problems += wrong
    refuse(problems)
    return People(classes=classes, numbers=numbers, patients=patients, columns=columns, rows=rows, parts=parts)


def same_content(content: np.ndarray, people: People, where: str = "data") -> list[str]:
    """Return the patients, with those joined who share a row of `content` [N, ...]: it may be one person twice.

    Raises:
        SpecError: a fixed `split` puts one content into two parts.
    """
    alike: dict[bytes, list[int]] = defaultdict(list)
    for i, row in enumerate(np.ascontiguousarray(content)):
        alike[row.tobytes()].append(i)
    names = list(people.patients)
    for same in alike.values():
        if people.parts is not None and len({people.parts[i] for i in same}) > 1:
            told = listed([f"{people.rows[i]} ({people.parts[i]})" for i in same])
            raise SpecError(f"{where}.split: {told} have the same genotypes; one content may stand in one part only")
        joined = {names[i] for i in same}
        if len(joined) > 1:
            names = [min(joined) if name in joined else name for name in names]
    return names


def _ordered(
    path: Path, columns: Mapping[str, list[str]], found: list[str], order: Sequence[str]
) -> dict[str, list[str]]:
    place = {name: i for i, name in enumerate(found)}
    problems = []
    for what, names in (
        ("names samples twice", [name for name, count in Counter(found).items() if count > 1]),
        ("has no row of samples of the VCF file", [name for name in order if name not in place]),
        ("has rows of samples that the VCF file does not have", sorted(set(found) - set(order))),
    ):
        if names:
            problems.append(f"data.labels = {str(path)!r} {what}: {listed(names)}")
    refuse(problems)
    return {name: [values[place[one]] for one in order] for name, values in columns.items()}


def _columns(path: Path) -> dict[str, list[str]]:
    """Return the CSV file's columns, every value as text."""
    if not path.is_file():
        raise SpecError(f"data.labels = {str(path)!r}: no such file")
    try:
        with warnings.catch_warnings():
            # A row with too many values is a warning to pandas, which then drops some of them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (ValueError, OSError, EOFError, pd.errors.ParserWarning) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise SpecError(f"data.labels = {str(path)!r} is not a CSV file in UTF-8 with a header: {reason}") from None
    frame = frame.fillna("")
    names = [str(name).strip() for name in frame.columns]
    return {_SEX.get(name, name): frame.iloc[:, i].str.strip().tolist() for i, name in enumerate(names)}
