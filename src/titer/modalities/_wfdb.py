"""WFDB records: headers, signals and annotations of a folder, cut into beats one record at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.modalities._checks import check_patient_values, listed, part_names, refuse, samples
from titer.modalities._guard import guarded
from titer.modalities._signals import Beats, Recorder, spaced
from titer.modalities._wfdb_header import Header, read_header

BEATS = ("N", "L", "R", "B", "A", "a", "J", "S", "V", "r", "F", "e", "j", "n", "E", "/", "f", "Q", "?")
"""WFDB's annotation symbols that mark a beat."""

_VENTRICULAR = "premature ventricular beat"
_PIECE = 2**15
"""Samples of a record that are in memory at once, and one beat more."""

_MOST_BYTES = 2**26
_REASON = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How records are cut: seconds before and after each annotation, its symbols' classes, and what is expected.

    `leads` and `rate` are those of the first record where they are not given; `most` beats are kept of each class and
    record.
    """

    before: float
    after: float
    classes: Mapping[str, tuple[str, ...]]
    leads: tuple[str, ...] | None = None
    rate: float | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """One record's beats: x float32[n, leads, samples] in mV, classes int64[n], and where each one's annotation is."""

    header: Header
    x: np.ndarray
    labels: np.ndarray
    peaks: np.ndarray


def check_symbols(symbols: Mapping[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]]:
    """Return the classes with their symbols; by default premature ventricular beats against all others.

    Raises:
        SpecError: fewer than two classes, an unknown symbol, or one in two classes.
    """
    if symbols is None:
        return {"other beat": tuple(one for one in BEATS if one != "V"), _VENTRICULAR: ("V",)}
    given = [one for values in symbols.values() for one in values]
    wrong = [one for one in given if one not in BEATS]
    if wrong:
        raise SpecError(f"data.symbols has {listed(wrong)}: allowed are WFDB's symbols of beats, {' '.join(BEATS)}")
    twice = sorted({one for one in given if given.count(one) > 1})
    if twice or len(symbols) < 2 or not all(symbols.values()):
        said = f"{listed(twice)} in two classes" if twice else f"{len(symbols)} class(es)"
        raise SpecError(f"data.symbols has {said}: allowed are two or more classes, each with symbols of its own")
    return dict(symbols)


def read_folder(folder: Path, extension: str, patients: Path | None, cut: Cut) -> Beats:
    """Return the beats of all records of a folder, or of those that the `patients` file lists.

    Raises:
        SpecError: naming the record, and the line or sample, of what is wrong.
    """
    if not folder.is_dir():
        raise SpecError(f"data.folder = {str(folder)!r}: no such directory")
    table = None if patients is None else _patients(patients)
    names = sorted(path.stem for path in folder.glob("*.hea")) if table is None else list(table.index)
    if not names:
        raise SpecError(f"data.folder = {str(folder)!r} holds no WFDB record: one or more .hea files are needed")
    records = list(_records(folder, names, extension, cut))
    if not records:
        raise SpecError(f"data.folder = {str(folder)!r} has no annotated beat of {listed(list(cut.classes))}")
    first = records[0].header
    owners = [one.header.name for one in records for _ in one.peaks]
    columns = {} if table is None else {str(name): table[name].loc[owners].tolist() for name in table.columns}
    parts: Sequence[str] | None = None
    if "split" in columns:
        parts, wrong = part_names(columns["split"], owners)
        refuse(wrong)
    rows = samples(
        np.concatenate([one.x for one in records]),
        np.concatenate([one.labels for one in records]),
        ids=[f"{one.header.name}-{peak}" for one in records for peak in one.peaks.tolist()],
        patients=columns.get("patient_id", owners),
        columns=columns,
    )
    recorder = Recorder(
        rate=first.rate,
        leads=cut.leads or first.leads,
        low=min(one.header.low for one in records),
        high=max(one.header.high for one in records),
        resolution=first.resolution if len({one.header.resolution for one in records}) == 1 else 0.0,
    )
    before = round(cut.before * first.rate)
    return Beats(rows=rows, classes=tuple(cut.classes), recorder=recorder, parts=parts, before=before)


def _patients(path: Path) -> pd.DataFrame:
    """Return the table of records as text, its index their names."""
    where = f"data.patients = {str(path)!r}"
    if not path.is_file():
        raise SpecError(f"{where}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        reason = (str(error).splitlines() or [""])[0][:_REASON]
        raise SpecError(f"{where} is not a CSV file in UTF-8 with a header: {reason}") from None
    frame = frame.fillna("").apply(lambda column: column.str.strip())
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    if "record" not in frame.columns:
        raise SpecError(f"{where} has no column 'record': its columns are {listed(list(frame.columns))}")
    twice = sorted(set(frame["record"][frame["record"].duplicated()]))
    if twice:
        raise SpecError(f"{where} names records twice: {listed(twice)}; allowed is one line a record")
    if "patient_id" in frame.columns:
        lines = [f"line {i} ({name})" for i, name in enumerate(frame["record"], start=2)]
        refuse(check_patient_values(frame["patient_id"].tolist(), lines))
    table: pd.DataFrame = frame.set_index("record")
    return table


def _records(folder: Path, names: Sequence[str], extension: str, cut: Cut) -> Iterator[_Record]:
    """Yield each record's beats; all are of one rate, and all have the leads of the first."""
    rate, leads = cut.rate, cut.leads
    for name in names:
        header = read_header(folder, name)
        rate, leads = rate or header.rate, leads or header.leads
        if header.rate != rate:
            raise SpecError(f"record {name!r} is sampled at {header.rate:g} Hz, others at {rate:g} Hz: allowed is one")
        absent = [lead for lead in leads if lead not in header.leads]
        if absent:
            raise SpecError(f"record {name!r} has no lead {listed(absent)}: its leads are {listed(header.leads)}")
        labels, peaks = _annotated(folder, header, extension, cut)
        if len(peaks):
            yield _Record(header=header, x=_windows(folder, header, leads, peaks, cut), labels=labels, peaks=peaks)


def _annotated(folder: Path, header: Header, extension: str, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and samples of the annotated beats whose window lies in the record."""
    name, path = header.name, folder / f"{header.name}.{extension}"
    if not path.is_file():
        raise SpecError(f"record {name!r} has no annotations: {path.name} is missing in {str(folder)!r}")
    if path.stat().st_size > _MOST_BYTES:
        raise SpecError(f"{path.name} has {path.stat().st_size} bytes: allowed are {_MOST_BYTES}")
    wfdb = need("wfdb", "signals")
    found = guarded(path.name, lambda: wfdb.rdann(str(folder / name), extension))
    at = np.asarray(found.sample, dtype=np.int64)
    if len(at) and (at.min() < 0 or at.max() >= header.samples):
        raise SpecError(f"{path.name} marks sample {at.max()}: record {name!r} has {header.samples}")
    of = {symbol: i for i, symbols in enumerate(cut.classes.values()) for symbol in symbols}
    labels = np.array([of.get(symbol, -1) for symbol in found.symbol], dtype=np.int64)
    before, after = _width(header, cut)
    kept = np.flatnonzero((labels >= 0) & (at >= before) & (at + after <= header.samples))
    kept = kept[np.unique(at[kept], return_index=True)[1]]
    if cut.most is not None:
        groups = [kept[labels[kept] == i] for i in range(len(cut.classes))]
        kept = np.sort(np.concatenate([rows[spaced(len(rows), cut.most)] for rows in groups]))
    return labels[kept], at[kept]


def _width(header: Header, cut: Cut) -> tuple[int, int]:
    before, after = round(cut.before * header.rate), round(cut.after * header.rate)
    if before + after < 2 or before + after > header.samples:
        raise SpecError(
            f"data.before + data.after is {before + after} samples at {header.rate:g} Hz: allowed are 2 to the "
            f"{header.samples} samples of record {header.name!r}"
        )
    return before, after


def _windows(folder: Path, header: Header, leads: Sequence[str], peaks: np.ndarray, cut: Cut) -> np.ndarray:
    """Return float32[n, leads, samples] in mV; the record is read in pieces."""
    wfdb = need("wfdb", "signals")
    before, after = _width(header, cut)
    channels = [header.leads.index(lead) for lead in leads]
    x = np.empty((len(peaks), len(leads), before + after), dtype=np.float32)
    place = np.arange(-before, after)
    for piece in np.split(np.arange(len(peaks)), _cuts(peaks)):
        start, end = int(peaks[piece[0]]) - before, int(peaks[piece[-1]]) + after
        part = partial(wfdb.rdrecord, sampfrom=start, sampto=end, channels=channels, ignore_skew=True)
        read = guarded(header.name, partial(part, str(folder / header.name)))
        values = np.asarray(read.p_signal, dtype=np.float64) * header.in_mv[channels]
        if values.shape != (end - start, len(leads)):
            raise SpecError(f"record {header.name!r} is truncated: samples {start} to {end} cannot be read")
        x[piece] = values[(peaks[piece] - start)[:, None] + place].transpose(0, 2, 1)
        broken = piece[~np.isfinite(x[piece]).reshape(len(piece), -1).all(1)]
        if len(broken):
            at = ", ".join(str(peaks[i]) for i in broken[:3])
            raise SpecError(f"record {header.name!r} has invalid samples (NaN) near sample {at}: allowed are numbers")
    return x


def _cuts(peaks: np.ndarray) -> list[int]:
    """Return where to cut the beats so that each piece spans no more than `_PIECE` samples."""
    cuts, first = list[int](), int(peaks[0])
    for i, peak in enumerate(peaks.tolist()):
        if peak - first > _PIECE:
            cuts.append(i)
            first = peak
    return cuts
