"""Damaged files for the readers' fuzz tests: one valid file, a thousand ways of breaking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

COUNT = 1000
_EDITS = 6


def mutants(content: bytes, seed: int = 2026, count: int = COUNT) -> Iterator[bytes]:
    """Yield `count` damaged copies: bytes changed (most of them in the header), cut out, doubled, or cut short."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, _EDITS))):
            reach = len(damaged) if rng.random() < 0.3 else min(len(damaged), 1200)
            place = int(rng.integers(reach))
            kind = rng.integers(4)
            if kind < 2:
                damaged[place] = int(rng.integers(256))
            elif kind == 2:
                del damaged[place : place + int(rng.integers(1, 9))]
            else:
                damaged[place:place] = damaged[place : place + int(rng.integers(1, 9))]
            if len(damaged) < 2:
                break
        yield bytes(damaged[: int(rng.integers(1, len(damaged)))] if rng.random() < 0.1 else damaged)


def survives(read: Callable[[bytes], object], content: bytes, error: type[Exception]) -> int:
    """Return how many of the damaged copies are refused; anything but `error`, in one line, fails the test."""
    refusals = []
    for number, damaged in enumerate(mutants(content)):
        try:
            read(damaged)
        except error as reason:
            refusals.append(str(reason))
        except Exception as other:  # noqa: BLE001 - says which input it was
            pytest.fail(f"input {number}: {type(other).__name__}: {other}")
    assert [one for one in refusals if not one or "\n" in one] == []
    return len(refusals)
