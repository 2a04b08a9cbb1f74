"""Headers of WFDB records: what a record must be before a byte of its signals is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.modalities._checks import listed
from titer.modalities._guard import guarded

_BITS = {"16": 16.0, "24": 24.0, "32": 32.0, "61": 16.0, "80": 8.0, "160": 16.0, "212": 12.0, "310": 10.0, "311": 10.0}
"""Bits a sample of the formats that are read."""

_IN_MV = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "v": 1e3}
_MOST_LEADS, _MOST_BYTES, _MOST_RATE = 64, 2**20, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One record: its rate in Hz, samples a lead, leads, the factor to mV of each, and range and step in mV."""

    name: str
    rate: float
    samples: int
    leads: tuple[str, ...]
    in_mv: np.ndarray
    low: float
    high: float
    resolution: float


def read_header(folder: Path, name: str) -> Header:
    """Return the header of a record whose signals lie beside it, complete.

    Raises:
        SpecError: it is damaged, of a form that is not read, or its signals are missing or truncated.
    """
    path = folder / f"{name}.hea"
    if not path.is_file():
        raise SpecError(f"record {name!r} has no header: {path.name} is missing in {str(folder)!r}")
    if path.stat().st_size > _MOST_BYTES:
        raise SpecError(f"{path.name} has {path.stat().st_size} bytes: allowed are {_MOST_BYTES}")
    wfdb = need("wfdb", "signals")
    read = guarded(path.name, lambda: wfdb.rdheader(str(folder / name)))
    problems = _form(read)
    if problems:
        raise SpecError(f"record {name!r} cannot be read: {'; '.join(problems)}")
    _check_files(folder, name, read)
    return _header(name, read)


def _form(read: Any) -> list[str]:
    """Return what of the header is damaged, or not read here."""
    if not hasattr(read, "fmt"):
        return ["it is of several segments, allowed are records of one"]
    count = read.n_sig
    if not isinstance(count, int) or not 1 <= count <= _MOST_LEADS:
        return [f"it has {count} signals, allowed are 1 to {_MOST_LEADS}"]
    fields = ("fmt", "file_name", "adc_gain", "baseline", "units", "sig_name", "samps_per_frame")
    short = [one for one in fields if not isinstance(getattr(read, one), list) or len(getattr(read, one)) != count]
    if short:
        return [f"its header lacks {listed(short)} of some signal"]
    return [*_timing(read), *_storage(read), *_scaling(read)]


def _timing(read: Any) -> list[str]:
    problems = []
    if not isinstance(read.sig_len, int) or read.sig_len < 1:
        problems.append(f"its length is {read.sig_len}, allowed are 1 sample or more")
    if not isinstance(read.fs, int | float) or not 0 < read.fs <= _MOST_RATE:
        problems.append(f"its rate is {read.fs}, allowed are more than 0 and at most {_MOST_RATE:g} Hz")
    if any(one != 1 for one in read.samps_per_frame):
        problems.append("its signals differ in rate, allowed is one sample a frame")
    return problems


def _storage(read: Any) -> list[str]:
    problems = []
    odd = sorted({str(one) for one in read.fmt} - set(_BITS))
    if odd:
        problems.append(f"its signals are stored in format {listed(odd)}, allowed are {', '.join(_BITS)}")
    names = [str(one) for one in read.sig_name]
    if len(set(names)) != len(names):
        problems.append(f"its signals share a name ({listed(names)}), each needs its own")
    return problems


def _scaling(read: Any) -> list[str]:
    problems = []
    bad = sorted({str(one) for one in read.units if str(one).lower() not in _IN_MV})
    if bad:
        problems.append(f"its signals are in {listed(bad)}, allowed are mV, uV and V")
    if not all(isinstance(one, int | float) and math.isfinite(one) and one > 0 for one in read.adc_gain):
        problems.append(f"its gains are {listed(read.adc_gain)}, allowed are positive numbers")
    if not all(isinstance(one, int) for one in read.baseline):
        problems.append(f"its baselines are {listed(read.baseline)}, allowed are whole numbers")
    return problems


def _check_files(folder: Path, name: str, read: Any) -> None:
    """Refuse signals that are missing, outside the folder, or shorter than the header says."""
    offsets = read.byte_offset or [None] * read.n_sig
    for file in dict.fromkeys(read.file_name):
        if Path(str(file)).name != file:
            raise SpecError(f"record {name!r} names the file {file!r}: allowed are files beside the header")
        path = folder / file
        if not path.is_file():
            raise SpecError(f"record {name!r} has no signals: {file} is missing in {str(folder)!r}")
        own = [i for i in range(read.n_sig) if read.file_name[i] == file]
        bits, start = _BITS[read.fmt[own[0]]], int(offsets[own[0]] or 0)
        needed = start + int(read.sig_len * len(own) * bits // 8)
        size = path.stat().st_size
        if size < needed or start < 0:
            raise SpecError(f"record {name!r} is truncated: {file} has {size} bytes, its header asks for {needed}")


def _header(name: str, read: Any) -> Header:
    units = np.array([_IN_MV[str(one).lower()] for one in read.units])
    gain = np.array(read.adc_gain, dtype=np.float64)
    baseline = np.array(read.baseline, dtype=np.float64)
    stored = [_BITS[one] for one in read.fmt]
    given = read.adc_res or [None] * read.n_sig
    bits = np.array([own if own and 0 < own <= most else most for own, most in zip(given, stored, strict=True)])
    zero = np.array([float(one or 0) for one in (read.adc_zero or [0] * read.n_sig)])
    steps = units / gain
    return Header(
        name=name,
        rate=float(read.fs),
        samples=int(read.sig_len),
        leads=tuple(str(one) for one in read.sig_name),
        in_mv=units,
        low=float(((zero - 2.0 ** (bits - 1) - baseline) * steps).min()),
        high=float(((zero + 2.0 ** (bits - 1) - 1 - baseline) * steps).max()),
        resolution=float(steps[0]) if (steps == steps[0]).all() else 0.0,
    )
