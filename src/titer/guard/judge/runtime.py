"""What runs inside the worker process: questions in, answers out, several questions in one pass."""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from titer.core.errors import TiterError
from titer.core.outputs import probabilities
from titer.guard.judge.inputs import image_rows
from titer.guard.judge.messages import Answer, Ask, Facts
from titer.guard.judge.models import Loaded, load

Handler = Callable[[Sequence[Ask]], list[Answer | str]]
"""Answers each question, or says why it cannot."""
Opener = Callable[[Path], tuple[Facts, Handler]]
"""Loads the bundle of a folder; SpecError where it is damaged."""
_ROWS = 64
_MIB = 1 << 20
_KIB = 1024


def open_bundle(folder: Path) -> tuple[Facts, Handler]:
    """Load a bundle for the worker.

    Raises:
        SpecError: a file is missing, changed, or does not fit the others.
    """
    loaded = load(folder)
    pinned = loaded.pinned
    facts = Facts(
        name=pinned.bundle.name,
        model_digest=pinned.model_digest,
        bundle_version=pinned.version,
        classes=pinned.bundle.classes,
        output=pinned.bundle.output,
        detectors=tuple(alarm.name for alarm in loaded.alarms),
        input=pinned.bundle.input.model_dump(mode="json"),
    )
    return facts, lambda asks: answered(loaded, asks)


def answered(loaded: Loaded, asks: Sequence[Ask]) -> list[Answer | str]:
    """Answer several questions: those whose inputs are all looked at share one pass."""
    found: list[Answer | str] = []
    for group in _groups(asks):
        found += [_explained(loaded, group[0])] if group[0].explain is not None else _judged(loaded, group)
    return found


def _groups(asks: Sequence[Ask]) -> list[list[Ask]]:
    """Return runs of questions that one pass can answer, in order."""
    groups: list[list[Ask]] = []
    for ask in asks:
        alike = groups and groups[-1][0].explain is None and ask.explain is None
        if alike and groups[-1][0].infer == ask.infer and _sees_all(ask) and _sees_all(groups[-1][0]):
            groups[-1].append(ask)
        else:
            groups.append([ask])
    return groups


def _sees_all(ask: Ask) -> bool:
    return ask.watched is None and ask.sampled is None


def _judged(loaded: Loaded, asks: Sequence[Ask]) -> list[Answer | str]:
    read = [_rows(loaded, ask) for ask in asks]
    placed = [[place for place, row in enumerate(part) if row is not None] for part, _ in read]
    rows = [row for part, _ in read for row in part if row is not None]
    seen = set(range(len(rows))) if _sees_all(asks[0]) else _seen(asks[0], placed[0])
    logits, scores = _passes(loaded, rows, seen, infer=asks[0].infer)
    found: list[Answer | str] = []
    start = 0
    for (part, unread), places in zip(read, placed, strict=True):
        mine = slice(start, start + len(places))
        own = {place for number, place in enumerate(places, start) if number in seen}
        found.append(_answer(loaded, len(part), places, own, unread, None if logits is None else logits[mine], {
            label: values[mine] for label, values in scores.items()
        }))  # fmt: skip
        start += len(places)
    return found


def _seen(ask: Ask, places: Sequence[int]) -> set[int]:
    """Return which of the inputs that were read detectors look at, by their number among these."""
    if ask.sampled is None or ask.watched is not None:
        return {number for number, place in enumerate(places) if place in (ask.watched or ())}
    if len(places) <= ask.sampled:
        return set(range(len(places)))
    return {number * len(places) // ask.sampled for number in range(ask.sampled)}


def _rows(loaded: Loaded, ask: Ask) -> tuple[list[Tensor | None], dict[int, str]]:
    """Return a row [1, ...] for each input, None where it cannot be read, with the reasons."""
    if ask.rows is not None:
        return list(torch.from_numpy(ask.rows.copy()).split(1)), {}
    rows: list[Tensor | None] = []
    unread: dict[int, str] = {}
    for place, name in enumerate(ask.files):
        try:
            rows += image_rows(_content(Path(name), ask.digests[place]), loaded.pinned.bundle.input, ask.frames)
        except (ValueError, OSError) as reason:
            unread[len(rows)] = str(reason)[:200] if isinstance(reason, ValueError) else "the file cannot be read"
            rows.append(None)
    return rows, unread


def _content(path: Path, digest: str) -> bytes:
    """Return a file's bytes; ValueError where they are not those that came in (G4)."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("the file is not the one that was received")
    return content


def _passes(
    loaded: Loaded, rows: list[Tensor], seen: set[int], *, infer: bool
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Return logits [N, K] where they are asked for, and each detector's scores [N], NaN of what it did not look at."""
    logits: list[Tensor] = []
    scores: dict[str, list[Tensor]] = {alarm.name: [] for alarm in loaded.alarms} if seen else {}
    for start in range(0, len(rows), _ROWS):
        x = torch.cat(rows[start : start + _ROWS])
        with torch.no_grad():
            logits.append(loaded.model.logits(x))
        mine = [place - start for place in sorted(seen) if start <= place < start + len(x)]
        part = x if len(mine) == len(x) else x[mine]
        for alarm in loaded.alarms if seen else ():
            if part is x:
                scores[alarm.name].append(alarm.score(x).detach().float())
                continue
            every = torch.full((len(x),), float("nan"))
            if mine:
                every[mine] = alarm.score(part).detach().float()
            scores[alarm.name].append(every)
    return torch.cat(logits) if logits and infer else None, {
        label: torch.cat(parts) for label, parts in scores.items() if parts
    }


def _answer(
    loaded: Loaded,
    inputs: int,
    places: list[int],
    watched: set[int],
    unread: dict[int, str],
    logits: Tensor | None,
    scores: dict[str, Tensor],
) -> Answer:
    chances: list[list[float] | None] = [None] * inputs
    if logits is not None:
        for place, row in zip(places, probabilities(loaded.model.output, logits).tolist(), strict=True):
            chances[place] = row
    seen: dict[str, list[float | None]] = {}
    for label, values in scores.items():
        own: list[float | None] = [None] * inputs
        for place, value in zip(places, values.tolist(), strict=True):
            own[place] = value if place in watched else None
        seen[label] = own
    limits = loaded.limits(len(watched)) if seen else {}
    return Answer(inputs=inputs, probabilities=chances, scores=seen, unread=unread, thresholds=limits)


def _explained(loaded: Loaded, ask: Ask) -> Answer | str:
    from titer.guard.judge.overlay import overlay

    rows, unread = _rows(loaded, ask)
    assert ask.explain is not None
    row = rows[ask.explain] if ask.explain < len(rows) else None
    if row is None:
        return unread.get(ask.explain, "there is no such input")
    try:
        png = overlay(loaded, row, ask.method)
    except TiterError as reason:
        return str(reason)
    return Answer(inputs=len(rows), png=base64.b64encode(png).decode())


def serve(connection: Connection, opener: Opener, folder: Path, memory_mib: int) -> None:
    """Run the worker: load the bundle, then answer until the guard closes the connection, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the guard, which ends this process itself
    torch.set_num_threads(1)
    try:
        _serve(connection, opener, folder, memory_mib)
    except (EOFError, ConnectionError):
        return  # a guard that was killed: nobody is left to tell, and the next one starts a worker of its own


def _serve(connection: Connection, opener: Opener, folder: Path, memory_mib: int) -> None:
    """Serve until the connection ends: EOFError between questions, ConnectionError where something was to be said."""
    try:
        facts, handler = opener(folder)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a bundle is said, and nothing is answered
        _send(connection, {"refused": str(error) if isinstance(error, TiterError) else type(error).__name__})
        return
    _limit(memory_mib)
    _send(connection, {"facts": asdict(facts)})
    while True:
        _send(connection, _handled(handler, connection.recv()))


def _handled(handler: Handler, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    try:
        found = handler(asks)
    except MemoryError:
        found = ["out of memory"] * len(asks)
    except Exception as error:  # noqa: BLE001 - whatever a model or detector does, the guard is told and flags
        found = [_reason(error)] * len(asks)
    return [{"failed": one} if isinstance(one, str) else asdict(one) for one in found]


def _reason(error: Exception) -> str:
    """Return why, without values of the input; torch says in words that the memory is full."""
    text = (str(error).splitlines() or [""])[0]
    if "allocate memory" in text or "not enough memory" in text:
        return "out of memory"
    return f"{type(error).__name__}: {text[:120]}".rstrip(": ")


def _send(connection: Connection, content: Any) -> None:
    connection.send_bytes(json.dumps(content).encode())


def _limit(memory_mib: int) -> None:
    """Cap the data that this process may take from here on (RLIMIT_DATA: heap and private mappings)."""
    used = next(
        int(line.split()[1]) * _KIB
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmData:")
    )
    most = used + memory_mib * _MIB
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
