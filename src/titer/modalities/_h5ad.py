"""AnnData files (.h5ad): rows are samples, columns are genes; the matrix comes in blocks from a process of its own."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any, NoReturn

import numpy as np

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.modalities._matrix import Matrix, Wanted, sorted_columns

_PATIENCE = 300.0
"""Seconds that one answer may take: a damaged file may keep HDF5 busy for ever."""


def read_h5ad(path: Path, wanted: Wanted, where: str) -> Matrix:
    """Read `X` (or a layer), `obs` and the names of `var`; the rest of the file stays on the disk.

    Raises:
        SpecError: a damaged file, or one that is no AnnData of samples by genes.
    """
    need("h5py", "omics")
    request = {"path": str(path.resolve()), "layer": wanted.layer, "columns": [*wanted.needed, *wanted.optional]}
    reader = _Reader.shared()
    names = reader.ask(request | {"what": "names"}, path, where)
    genes, titles, ids = names["genes"], names["titles"], names["ids"]
    both = sorted(set(genes) & set(titles))
    if both:
        raise SpecError(f"{where} = {str(path)!r} calls an obs column and a gene {both[0]!r}: rename one of them")
    words, kept = sorted_columns([*titles, *genes], path.name, _without_other_columns(titles, wanted), where)
    if names["shape"] != [len(ids), len(genes)] or any(len(names["columns"][word]) != len(ids) for word in words):
        raise SpecError(
            f"{where} = {str(path)!r}: the matrix is {names['shape']}, obs and var say {[len(ids), len(genes)]}"
        )
    x = reader.values(request | {"what": "values"}, (len(ids), len(genes)), path, where)
    places = [i - len(titles) for i in kept]
    return Matrix(
        place=path.name,
        ids=tuple(ids),
        features=tuple(genes[i] for i in places),
        x=x if len(places) == len(genes) else x[:, places],
        columns={word: names["columns"][word] for word in words},
    )


def _without_other_columns(titles: list[str], wanted: Wanted) -> Wanted:
    """Return what is wanted with every other column of obs left out: none of them is a gene."""
    others = [title for title in titles if title not in (*wanted.needed, *wanted.optional)]
    return Wanted(
        needed=wanted.needed, optional=wanted.optional, ignored=tuple(dict.fromkeys((*wanted.ignored, *others)))
    )


class _Reader:
    """The process that reads, started when first asked and again after a file has killed it."""

    _shared: _Reader | None = None

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def shared(cls) -> _Reader:
        """Return the one of this process."""
        if cls._shared is None:
            cls._shared = cls()
            atexit.register(cls._shared.end)
        return cls._shared

    def end(self) -> None:
        """End the process, where there is one, and close its pipes."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def ask(self, request: dict[str, Any], path: Path, where: str) -> dict[str, Any]:
        """Return the first answer; SpecError where the file cannot be read, or kills its reader."""
        process = self._running()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has died: the answer says so
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        return self._answer(path, where)

    def values(self, request: dict[str, Any], shape: tuple[int, int], path: Path, where: str) -> np.ndarray:
        """Return the matrix, float32 of the shape."""
        x = np.empty(shape, dtype=np.float32)
        bytes_of, done = memoryview(x.data).cast("B"), 0
        answer = self.ask(request, path, where)
        while "block" in answer:
            end = done + int(answer["block"])
            if end > len(bytes_of) or self._filled(bytes_of[done:end]) < end - done:
                self._refuse(path, where, "its matrix ends early, or goes on beyond its shape")
            done = end
            answer = self._answer(path, where)
        if done != len(bytes_of):
            self._refuse(path, where, "its matrix ends early")
        return x

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.end()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "titer.modalities._h5ad_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _answer(self, path: Path, where: str) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None
        watch = Timer(_PATIENCE, process.kill)
        watch.start()
        try:
            line = process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            self._refuse(path, where, "HDF5 fails on it")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SpecError(f"{where} = {str(path)!r} is no AnnData file that can be read: {answer['error']}")
        return answer

    def _filled(self, place: memoryview) -> int:
        """Fill the place; return how many bytes came."""
        process, came = self._running(), 0
        assert process.stdout is not None
        while came < len(place):
            count = process.stdout.readinto(place[came:])  # type: ignore[attr-defined]
            if not count:
                break
            came += count
        return came

    def _refuse(self, path: Path, where: str, reason: str) -> NoReturn:
        """End the process, whose answers are out of step, and raise."""
        self.end()
        raise SpecError(f"{where} = {str(path)!r} is no AnnData file that can be read: {reason}")
