"""Edit CSV files of measures: text, quotes and digits that a tamper does not name stay as they were."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from titer.core.errors import Incompatible
from titer.core.protocols import Tampered
from titer.tampers._bgzf import packed, unpacked

Rows = list[list[str]]
"""Lines of a table, each as its values in the file's own writing (quotes included), the header first."""

Edit = Callable[[Rows], Sequence[str]]
"""Changes the rows in place and returns a sentence for each change."""


def edited(files: Mapping[str, bytes], edit: Edit) -> Tampered:
    """Return CSV files (gzipped or not), each edited.

    Raises:
        Incompatible: a file is no CSV file in UTF-8 with a header and rows of its width; says the line.
    """
    if not files:
        raise Incompatible("a CSV file is needed")
    out, changed = {}, []
    for name, content in files.items():
        try:
            lines = unpacked(name, content).decode().split("\n")
        except UnicodeDecodeError:
            raise Incompatible(f"{name} is no CSV file in UTF-8") from None
        comma = max(",\t;", key=lines[0].count)
        rows = _read(name, lines, comma)
        changed += [f"{name}: {told}" for told in edit(rows)]
        tail = lines[len(rows) :]
        out[name] = packed("\n".join([*(comma.join(row) for row in rows), *tail]).encode(), content)
    return Tampered(files=out, changed=tuple(changed))


def value(written: str) -> str:
    """Return a value without the quotes, blanks and line end that it is written with."""
    text = written.strip()
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def measures(rows: Rows) -> list[int]:
    """Return the columns that hold numbers in every row, the first column left out: it names the samples.

    Raises:
        Incompatible: there are fewer than two.
    """
    found = [i for i in range(1, len(rows[0])) if all(_is_number(row[i]) for row in rows[1:])]
    if len(found) < 2:
        raise Incompatible(f"{len(found)} column(s) after the first hold numbers alone: a table of measures is needed")
    return found


def exchange(first: list[str], second: list[str], i: int, j: int) -> None:
    """Exchange two values; what ends a line stays at its end."""
    (one, end), (other, tail) = _parted(first[i]), _parted(second[j])
    first[i], second[j] = other + end, one + tail


def _parted(written: str) -> tuple[str, str]:
    bare = written.rstrip("\r")
    return bare, written[len(bare) :]


def _is_number(written: str) -> bool:
    try:
        return abs(float(value(written))) < float("inf")
    except ValueError:
        return False


def _read(name: str, lines: Sequence[str], comma: str) -> Rows:
    count = len(lines)
    while count and not lines[count - 1].strip():
        count -= 1
    if count < 2:
        raise Incompatible(f"{name} holds {count} lines: a header and rows are needed")
    token = re.compile(rf'(?:^|{comma})([ ]*"(?:[^"]|"")*"[ \r]*|[^"{comma}]*)')
    rows = []
    for number, line in enumerate(lines[:count], start=1):
        rows.append(token.findall(line))
        if comma.join(rows[-1]) != line:
            raise Incompatible(f"{name}: line {number} has quotes that do not end in it")
        if len(rows[-1]) != len(rows[0]):
            raise Incompatible(f"{name}: line {number} has {len(rows[-1])} values, not {len(rows[0])}")
    return rows
