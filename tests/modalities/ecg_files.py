"""WFDB records for tests: beats that differ by class, each second one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import wfdb

RATE, EVERY = 360, 300


def write_record(folder: Path, name: str, *, beats: int = 12, rate: int = RATE, **changes: Any) -> None:
    """Write a record of two leads in mV with annotated beats, every fourth one ventricular."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(sum(name.encode()))
    signal = 0.05 * rng.standard_normal((beats * EVERY + 100, 2)) + 0.3
    peaks = EVERY // 2 + EVERY * np.arange(beats)
    symbols = ["V" if i % 4 == 3 else "N" for i in range(beats)]
    near = np.arange(-EVERY // 2, EVERY // 2)
    for peak, symbol in zip(peaks, symbols, strict=True):
        signal[peak + near, 0] += np.exp(-((near / (30 if symbol == "V" else 6)) ** 2))
    settings: dict[str, Any] = {"fmt": ["212", "212"], "adc_gain": [200.0, 200.0], "baseline": [0, 0]} | changes
    settings |= {"units": ["mV", "mV"], "sig_name": ["MLII", "V1"], "p_signal": signal}
    wfdb.wrsamp(name, fs=rate, write_dir=str(folder), **settings)
    wfdb.wrann(name, "atr", peaks, symbol=symbols, write_dir=str(folder))


def write_study(folder: Path, count: int = 4) -> Path:
    """Write so many records, and return their folder."""
    for i in range(count):
        write_record(folder, f"p{i}")
    return folder
