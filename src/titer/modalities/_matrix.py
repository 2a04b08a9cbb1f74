"""Matrices of samples by genes (or CpG sites), read in a stream: a float32 array grows, the text is never held."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from titer.core.errors import SpecError, TiterError, unknown
from titer.modalities._checks import listed

_MISSING = {"", "na", "n/a", "nan", "null", "none"}
_NAN = float("nan")
_MOST_COLUMNS = 2_000_000
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Samples `ids` by `features`: x float32[N, F], with the columns that are no features, as text."""

    place: str
    ids: tuple[str, ...]
    features: tuple[str, ...]
    x: np.ndarray
    columns: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a file is no measurement: columns that must be there, that may be there, and that are left out."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ("sex", "age", "site", "split")
    ignored: tuple[str, ...] = ()
    layer: str | None = None


def read_matrix(path: Path, wanted: Wanted, where: str) -> Matrix:
    """Read a .csv or .tsv file (gzip too), or an AnnData .h5ad file.

    Raises:
        SpecError: no such file, another format, or anything in it that is no matrix of samples by genes; names the
            file, and the line, gene and sample.
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    name = path.name.lower().removesuffix(".gz")
    if path.name.lower().endswith(".h5ad"):
        from titer.modalities._h5ad import read_h5ad

        return checked_matrix(read_h5ad(path, wanted, where), where)
    if wanted.layer is not None:
        raise SpecError(f"data.layer = {wanted.layer!r} is not allowed with {path.name}: only .h5ad files have layers")
    if not name.endswith((".csv", ".tsv", ".txt")):
        raise SpecError(f"{where} = {str(path)!r} is not allowed: a matrix is a .csv, .tsv (or .gz of them) or .h5ad")
    delimiter = "," if name.endswith(".csv") else "\t"
    with _text(path, where) as stream:
        return checked_matrix(_read(csv.reader(stream, delimiter=delimiter), path.name, wanted, where), where)


@contextmanager
def _text(path: Path, where: str) -> Iterator[TextIO]:
    """Open a text file, compressed or not; whatever breaks while it is read becomes a SpecError of one line."""
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    except TiterError:
        raise
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise SpecError(f"{where} = {str(path)!r} is not UTF-8 text (byte 0x{byte:02x}): save it as UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        reason = " ".join(str(error).split())[:120]
        raise SpecError(f"{where} = {str(path)!r} is damaged ({reason}): it cannot be read to its end") from None


class _Lines:
    """The lines of a table with their numbers."""

    def __init__(self, reader: Iterator[list[str]]) -> None:
        self._reader = reader

    @property
    def number(self) -> int:
        """The line that was read last."""
        return int(getattr(self._reader, "line_num", 0))

    def __iter__(self) -> Iterator[list[str]]:
        return (fields for fields in self._reader if any(fields))


def _read(reader: Iterator[list[str]], name: str, wanted: Wanted, where: str) -> Matrix:
    lines = _Lines(reader)
    header = next(iter(lines), None)
    if header is None:
        raise SpecError(f"{where} = {name!r} holds no line: a header and one line a sample are needed")
    header = [title.strip() for title in header]
    words, genes = sorted_columns(header[1:], name, wanted, where)
    keep = [header.index(title, 1) for title in words]
    places = [i + 1 for i in genes]
    values, ids, columns = array("f"), list[str](), {title: list[str]() for title in words}
    holes: list[str] = []
    for fields in lines:
        if len(fields) != len(header):
            raise SpecError(
                f"{where} = {name!r}, line {lines.number}: {len(fields)} values where the header has {len(header)}"
            )
        ids.append(fields[0].strip())
        for title, i in zip(words, keep, strict=True):
            columns[title].append(fields[i].strip())
        numbers = [fields[i] for i in places]
        try:
            values.extend(_numbers(numbers))
        except ValueError:
            holes += _unread(numbers, [header[i] for i in places], ids[-1], lines.number, name, where)
            values.extend(_NAN if _is_missing(text) else float(text) for text in numbers)
    _refuse_holes(holes, name, where)
    x = np.frombuffer(values, dtype=np.float32).reshape(len(ids), len(places))
    return Matrix(place=name, ids=tuple(ids), features=tuple(header[i] for i in places), x=x, columns=columns)


def sorted_columns(titles: Sequence[str], name: str, wanted: Wanted, where: str) -> tuple[list[str], list[int]]:
    """Return the names of the columns that are no measurements, and the places of those that are.

    Raises:
        SpecError: a needed column is not there, a name stands twice or is empty, or nothing is measured.
    """
    absent = [title for title in (*wanted.needed, *wanted.ignored) if title not in titles]
    if absent:
        raise unknown(f"{where} = {name!r}: the column", absent[0], titles)
    if len(titles) > _MOST_COLUMNS:
        raise SpecError(f"{where} = {name!r} has {len(titles)} columns: allowed are {_MOST_COLUMNS}")
    twice = [title for title, count in Counter(titles).items() if count > 1]
    if twice:
        raise SpecError(f"{where} = {name!r} names columns twice: {listed(twice)}; each gene may stand once")
    if "" in titles:
        raise SpecError(f"{where} = {name!r}: column {titles.index('') + 2} has no name")
    words = [title for title in dict.fromkeys((*wanted.needed, *wanted.optional)) if title in titles]
    apart = {*words, *wanted.ignored}
    genes = [i for i, title in enumerate(titles) if title not in apart]
    if not genes:
        raise SpecError(f"{where} = {name!r} measures nothing: every column is named in the settings")
    return words, genes


def _numbers(texts: list[str]) -> list[float]:
    if any("_" in text for text in texts):  # Python reads 1_0 as ten
        raise ValueError
    return [float(text) for text in texts]


def _is_missing(text: str) -> bool:
    return text.strip().lower() in _MISSING


def _unread(texts: list[str], genes: list[str], sample: str, line: int, name: str, where: str) -> list[str]:
    """Return which values of a line are missing; SpecError for the first that is no number."""
    holes = []
    for gene, text in zip(genes, texts, strict=True):
        if _is_missing(text):
            holes.append(f"{gene} of {sample} (line {line})")
            continue
        try:
            _numbers([text])
        except ValueError:
            raise SpecError(
                f"{where} = {name!r}, line {line}, column {gene!r}: {text[:40]!r} is not a number; a column that is no "
                "gene is named in data.ignore"
            ) from None
    return holes


def _refuse_holes(holes: Sequence[str], name: str, where: str) -> None:
    if holes:
        more = f" and {len(holes) - _SHOWN} more" if len(holes) > _SHOWN else ""
        raise SpecError(
            f"{where} = {name!r} lacks {len(holes)} value(s): {', '.join(holes[:_SHOWN])}{more}; a matrix may hold no "
            "NaN: leave those genes or samples out, or impute them before"
        )


def checked_matrix(matrix: Matrix, where: str) -> Matrix:
    """Return the matrix; SpecError where it has no sample, a sample without a name or twice, or an infinite value."""
    name = matrix.place
    if not matrix.ids:
        raise SpecError(f"{where} = {name!r} holds no sample: one line each is needed")
    if "" in matrix.ids:
        raise SpecError(f"{where} = {name!r}: sample {matrix.ids.index('') + 1} has no id")
    twice = [one for one, count in Counter(matrix.ids).items() if count > 1]
    if twice:
        raise SpecError(f"{where} = {name!r} holds sample ids twice: {listed(twice)}")
    sound = np.isfinite(matrix.x)
    if not sound.all():
        rows, genes = np.nonzero(~sound)
        _refuse_holes(
            [f"{matrix.features[g]} of {matrix.ids[r]}" for r, g in zip(rows, genes, strict=True)], name, where
        )
    return matrix


def aligned(matrix: Matrix, features: Sequence[str], where: str, other: str) -> Matrix:
    """Return the matrix with its genes in the order of `features`, those of the training file `other`.

    Raises:
        SpecError: a gene that stands in only one of the two files.
    """
    place = {name: i for i, name in enumerate(matrix.features)}
    missing, extra = [g for g in features if g not in place], sorted(set(matrix.features) - set(features))
    if missing or extra:
        parts = [f"lacks {listed(missing)} of {other}"] if missing else []
        parts += [f"has {listed(extra)} that {other} lacks"] if extra else []
        raise SpecError(f"{where} = {matrix.place!r} {' and '.join(parts)}: training and test need the same genes")
    order = [place[name] for name in features]
    return Matrix(
        place=matrix.place, ids=matrix.ids, features=tuple(features), x=matrix.x[:, order], columns=matrix.columns
    )


def named(columns: Collection[str | None]) -> tuple[str, ...]:
    """Return the columns that are given, each once."""
    return tuple(dict.fromkeys(one for one in columns if one is not None))
