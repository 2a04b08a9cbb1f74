"""What every reader of signals shares: the recorder, its rules, and beats as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from titer.core.record import ClinicalData, Samples
from titer.core.threat import Region
from titer.modalities._checks import checked, divided, listed, refuse
from titer.threats.band import BandLimit
from titer.threats.rules import Box, whole_steps

BAND = 40.0
"""The limit of the rule `below-40-hz`: the upper edge of a monitor's usual filter, in Hz."""

MV_UNITS = {"mV": 1.0, "uV": 1e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """What recorded the signals.

    `rate` is in samples a second, `low` and `high` are the ends of its range and `resolution` its step in mV: 0 where
    it is not known, as the ends are infinite then.
    """

    rate: float
    leads: tuple[str, ...]
    low: float = -np.inf
    high: float = np.inf
    resolution: float = 0.0

    def domain(self) -> tuple[Region, ...]:
        """Return what always holds: no recorder stores a value outside its range."""
        if not np.isfinite(self.low) or not np.isfinite(self.high):
            return ()
        return (Box(low=self.low, high=self.high, text=f"each value in [{self.low:g}, {self.high:g}] mV"),)

    def rules(self) -> Mapping[str, Region]:
        """Return the rules that a threat may ask for by name."""
        rules: dict[str, Region] = {}
        if self.rate > 2 * BAND:
            rules["below-40-hz"] = BandLimit(limit=BAND, rate=self.rate, resolution=self.resolution)
        if self.resolution > 0:
            text = f"each value is a whole step of {1000 * self.resolution:g} uV, as it is stored"
            rules["stored-values"] = whole_steps(self.resolution, text)
        return rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """Beats in mV with what recorded them; `parts` names the part of each where the data fix it.

    `before` is how many samples of a beat lie before its R peak: 0 where that is not known.
    """

    rows: Samples
    classes: tuple[str, ...]
    recorder: Recorder
    parts: Sequence[str] | None = None
    before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a report says of a data set, and how it is split where the data do not fix it."""

    title: str
    source: str
    licence: str
    test_share: float
    validation_share: float


def as_data(beats: Beats, positive: int | None, about: About) -> ClinicalData:
    """Return the beats as a checked data set.

    Raises:
        SpecError: everything that is wrong with it, a beat of two patients included.
    """
    refuse(copies(beats.rows))
    recorder = beats.recorder
    pool, fixed = divided(beats.rows, beats.parts)
    finite = np.isfinite(recorder.low) and np.isfinite(recorder.high)
    return checked(
        ClinicalData(
            name="ecg",
            title=about.title,
            kind="signal",
            source=about.source,
            licence=about.licence,
            classes=beats.classes,
            positive=positive,
            pool=pool,
            fixed=fixed,
            domain=recorder.domain(),
            units={**MV_UNITS},
            value_range=(recorder.low, recorder.high) if finite else None,
            test_share=about.test_share,
            validation_share=about.validation_share,
            rules=recorder.rules(),
            drawing={"rate": recorder.rate, "leads": list(recorder.leads), "unit": "mV", "before": beats.before},
        )
    )


def copies(rows: Samples) -> list[str]:
    """Return what is wrong where the same beat stands under two patients: a split by patient would leak it.

    Flat lines, which every recorder can store, are no beat's own.
    """
    seen: dict[bytes, int] = {}
    found = []
    values = rows.x.numpy()
    flat = np.ptp(values.reshape(len(values), -1), axis=1) == 0
    for i in np.flatnonzero(~flat):
        digest = hashlib.blake2b(values[i].tobytes(), digest_size=16).digest()
        first = seen.setdefault(digest, int(i))
        if rows.patients[first] != rows.patients[i]:
            found.append(f"{rows.ids[first]} and {rows.ids[i]}")
    if not found:
        return []
    return [f"data holds the same beat under two patients: {listed(found)}; a split by patient would leak it"]


def thinned(labels: np.ndarray, records: np.ndarray, most: int | None) -> np.ndarray:
    """Return int64[n] of rows in their order: of each class of each record at most so many, evenly spaced."""
    if most is None:
        return np.arange(len(labels))
    kept = []
    for record in dict.fromkeys(records.tolist()):
        for label in np.unique(labels):
            rows = np.flatnonzero((records == record) & (labels == label))
            kept.append(rows[spaced(len(rows), most)])
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)


def spaced(count: int, most: int) -> np.ndarray:
    """Return at most `most` of the indices 0 to count - 1, evenly spaced."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)
