"""Notes as words: reading CSV files and text folders, cutting texts into words, and finding texts that are the same."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from titer.core.errors import SpecError, nearest
from titer.modalities._checks import listed

_WORD = re.compile(r"[a-z0-9]+(?:['/.-][a-z0-9]+)*")
_LONGEST_FIELD = 2**24
_SHINGLE = 5
_SIGNATURE, _BANDS = 64, 16
_ALIKE = 0.8
_PRIME = (1 << 61) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One text with what its row says of it; `place` is where it stands, for messages."""

    id: str
    text: str
    label: str
    place: str
    columns: dict[str, str] = field(default_factory=dict)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; a number keeps its point, a compound its hyphen or slash."""
    return _WORD.findall(text.lower())


def read_csv(path: Path, where: str, text_column: str, label_column: str) -> Iterator[Note]:
    """Yield the notes of a CSV file in UTF-8 (.gz too), one at a time: the file is never whole in memory.

    Raises:
        SpecError: no such file, another encoding (with the byte), a missing column, a broken row (with its line).
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    csv.field_size_limit(_LONGEST_FIELD)
    with _opened(path) as stream:
        reader = csv.reader(_lines(stream, path, where), strict=True)
        header: list[str] = []
        try:
            for values in reader:
                if not header:
                    header = _header(values, path, where, text_column, label_column)
                    continue
                if not values:
                    continue
                place = f"line {reader.line_num}"
                if len(values) != len(header):
                    raise SpecError(
                        f"{where} = {str(path)!r}, {place}: {len(values)} values where the header has {len(header)}"
                    )
                yield _note(dict(zip(header, values, strict=True)), text_column, label_column, place)
        except (csv.Error, OSError, EOFError, zlib.error) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise SpecError(
                f"{where} = {str(path)!r}, line {reader.line_num}: not readable as CSV ({reason})"
            ) from None
    if not header:
        raise SpecError(f"{where} = {str(path)!r} is empty: a header and one row a note are needed")


def read_folder(folder: Path, where: str) -> Iterator[Note]:
    """Yield the notes of a folder: the .txt files of each of its folders, which is named as their class.

    Raises:
        SpecError: no such folder, no class folder in it, or a file in another encoding (with the byte).
    """
    if not folder.is_dir():
        raise SpecError(f"{where} = {str(folder)!r}: no such directory")
    kinds = sorted(one for one in folder.iterdir() if one.is_dir())
    if not kinds:
        raise SpecError(f"{where} = {str(folder)!r} holds no folders: one folder a class is needed, of .txt files")
    for kind in kinds:
        for path in sorted(kind.glob("*.txt")):
            name = f"{kind.name}/{path.name}"
            try:
                text = path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise _encoding(path, where, error.start, error.object) from None
            except OSError as error:
                raise SpecError(f"{where} = {str(path)!r} cannot be read: {error.strerror}") from None
            yield Note(id=name, text=text, label=kind.name, place=name)


def same_texts(signatures: Sequence[np.ndarray]) -> list[int]:
    """Return for each note, by its `signature`, the number of the first one that is the same or nearly so.

    Nearly: an estimated Jaccard likeness of 0.8 or more of their runs of five words (MinHash, Broder 1997,
    10.1109/SEQUEN.1997.666900), among notes that share a band of their signatures.
    """
    first = list(range(len(signatures)))
    bands: dict[bytes, list[int]] = defaultdict(list)
    for row, own in enumerate(signatures):
        for band, part in enumerate(own.reshape(_BANDS, -1)):
            key = bytes([band]) + part.tobytes()
            like = next((o for o in bands[key] if (signatures[o] == own).mean() >= _ALIKE), None)
            if like is not None:
                _join(first, like, row)
            bands[key].append(row)
    return [_root(first, row) for row in range(len(signatures))]


def joined(groups: Iterable[Sequence[object]]) -> list[int]:
    """Return the number of the first row that each row is joined to, where any of the groupings join them."""
    columns = [list(one) for one in groups]
    first = list(range(len(columns[0])))
    for column in columns:
        seen: dict[object, int] = {}
        for row, value in enumerate(column):
            _join(first, seen.setdefault(value, row), row)
    return [_root(first, row) for row in range(len(first))]


def _root(first: list[int], row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]
        row = first[row]
    return row


def _join(first: list[int], one: int, other: int) -> None:
    a, b = _root(first, one), _root(first, other)
    first[max(a, b)] = min(a, b)


_rng = np.random.default_rng(0)
_SLOPES = _rng.integers(1, 2**31, _SIGNATURE, dtype=np.uint64)
_STARTS = _rng.integers(0, 2**31, _SIGNATURE, dtype=np.uint64)
_PLACES = _rng.integers(2**62, 2**63, _SHINGLE, dtype=np.uint64) | np.uint64(1)


def signature(words: Sequence[str]) -> np.ndarray:
    """Return uint64[64]: the least value of each of 64 hashes over the runs of five words."""
    own = np.array([zlib.crc32(word.encode()) for word in words] or [0], dtype=np.uint64)
    count = max(1, len(own) - _SHINGLE + 1)
    # A run's key is a sum of its words' keys, each times a number of its place; what overflows 64 bits is cut off.
    runs = [own[i : i + count] * place for i, place in enumerate(_PLACES[: min(_SHINGLE, len(own))])]
    keys = np.unique(np.sum(runs, axis=0, dtype=np.uint64) >> np.uint64(32))
    hashed: np.ndarray = ((keys[:, None] * _SLOPES + _STARTS) % np.uint64(_PRIME)).min(0)
    return hashed


def digest_of(words: Sequence[str]) -> str:
    """Return what two notes of the same words share."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()


def _opened(path: Path) -> gzip.GzipFile | IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _lines(stream: Iterable[bytes], path: Path, where: str) -> Iterator[str]:
    """Yield the lines decoded, each end of line kept; SpecError with the byte's place where one is not UTF-8."""
    at = 0
    for line in stream:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _encoding(path, where, at + error.start, error.object, error.start) from None
        yield text.removeprefix("\ufeff") if at == 0 else text
        at += len(line)


def _encoding(path: Path, where: str, at: int, content: bytes, place: int | None = None) -> SpecError:
    value = content[at if place is None else place]
    return SpecError(f"{where} = {str(path)!r}, byte {at} (0x{value:02x}): the text is not UTF-8; convert it to UTF-8")


def _header(values: list[str], path: Path, where: str, text_column: str, label_column: str) -> list[str]:
    names = [value.strip() for value in values]
    for setting, name in (("text_column", text_column), ("label_column", label_column)):
        if name not in names:
            columns = listed(names)
            raise SpecError(
                f"data.{setting} = {name!r} is not a column of {str(path)!r}: its columns are {columns}"
                f"{nearest(name, names)}"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"{where} = {str(path)!r} has columns twice: {listed(twice)}")
    return names


def _note(row: dict[str, str], text_column: str, label_column: str, place: str) -> Note:
    columns = {name: value.strip() for name, value in row.items() if name != text_column}
    name = columns.get("note_id") or place
    return Note(id=name, text=row[text_column], label=columns[label_column], place=place, columns=columns)
