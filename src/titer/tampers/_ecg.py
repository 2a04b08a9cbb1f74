"""Edit WFDB headers (physionet.org/physiotools/wag/header-5.htm); the signals' files keep every byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from titer.core.errors import Incompatible
from titer.core.protocols import Tampered

FILE, FORMAT, GAIN, DESCRIPTION = 0, 1, 2, 8
"""Fields of a signal's line."""

_RECORD = re.compile(r"[\w.-]+(?:/\d+)?\s+(\d{1,5})(?:\s|$)")

Edit = Callable[[list[list[str]]], Sequence[str]]
"""Changes the fields of the signals' lines in place and returns a sentence for each change."""


def edited(files: Mapping[str, bytes], edit: Edit) -> Tampered:
    """Return the files with every WFDB header (.hea) edited.

    Raises:
        Incompatible: there is no header, or one cannot be read.
    """
    headers = [name for name in files if name.lower().endswith(".hea")]
    if not headers:
        raise Incompatible("a WFDB header (.hea) is needed")
    out, changed = dict(files), []
    for name in headers:
        lines, signals = _read(name, files[name])
        fields = [lines[i].rstrip("\r").split(None, DESCRIPTION) for i in signals]
        before = [list(one) for one in fields]
        changed += [f"{name}: {told}" for told in edit(fields)]
        for i, old, new in zip(signals, before, fields, strict=True):
            if new != old:
                lines[i] = " ".join(new) + ("\r" if lines[i].endswith("\r") else "")
        out[name] = "\n".join(lines).encode()
    return Tampered(files=out, changed=tuple(changed))


def _read(name: str, content: bytes) -> tuple[list[str], list[int]]:
    """Return the header's lines, and which of them are of signals."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise Incompatible(f"{name} is no WFDB header: it is not UTF-8") from None
    told = [i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    record = _RECORD.match(lines[told[0]]) if told else None
    if record is None:
        raise Incompatible(f"{name} is no WFDB header: its first line names no record and number of signals")
    signals = told[1 : 1 + int(record[1])]
    if not signals or len(signals) != int(record[1]):
        raise Incompatible(f"{name}: {len(signals)} lines of signals, not {record[1]}")
    short = next((i for i in signals if len(lines[i].split()) <= GAIN), None)
    if short is not None:
        raise Incompatible(f"{name}: line {short + 1} has no gain (fields: file, format, gain, ...)")
    return lines, signals
