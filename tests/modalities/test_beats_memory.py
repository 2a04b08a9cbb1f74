"""Readers of beats hold what they return: ten times as much takes no more beside it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from titer.core.plugins import make_modality

_LENGTH = 250
_BESIDE = 3.0
"""Sizes of the result: a few copies of what is read, whatever it is, while it is checked and split."""


def npz_of_beats(path: Path, count: int) -> dict[str, object]:
    beats = np.random.default_rng(0).normal(0, 0.3, (count, _LENGTH)).astype(np.float32)
    np.savez(
        path.with_suffix(".npz"), beats=beats, labels=np.arange(count) % 2, record=np.arange(count) // 10, rate=360.0
    )
    return {"name": "ecg", "file": str(path.with_suffix(".npz"))}


def csv_of_beats(path: Path, count: int) -> dict[str, object]:
    beats = np.random.default_rng(0).normal(0, 0.3, (count, _LENGTH)).round(3)
    header = ",".join(["label", "record", *map(str, range(_LENGTH))])
    lines = (f"{i % 2},{i // 10},{','.join(map(str, beat))}" for i, beat in enumerate(beats.tolist()))
    path.with_suffix(".csv").write_text("\n".join([header, *lines]))
    return {"name": "ecg", "file": str(path.with_suffix(".csv")), "rate": 360}


@pytest.mark.parametrize("form", [npz_of_beats, csv_of_beats])
def test_memory_grows_with_the_result_alone(form: Callable[[Path, int], dict[str, object]], tmp_path: Path) -> None:
    peaks, results = [], []
    for place, count in enumerate((400, 400, 4000)):  # once more at first: libraries are imported at the first use
        load = make_modality(form(tmp_path / f"{place}", count))
        tracemalloc.start()
        data = load()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        results.append(sum(4 * part.x.numel() for part in data.parts().values()))
    assert results[2] == 10 * results[1]
    assert peaks[2] - peaks[1] < _BESIDE * (results[2] - results[1]), (peaks, results)
