"""Lead swap: two leads of an ECG change names, as if two electrodes had been exchanged."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible
from titer.core.plugins import tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._draws import pick
from titer.tampers._ecg import DESCRIPTION, edited


@tamper(
    "ecg-lead-swap",
    files="ecg",
    misses="reading with wfdb, and the checksums of the signals: no sample changes, and every lead is there once",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def ecg_lead_swap() -> Tamper:
    """Exchange the names of two leads in the header."""

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        return edited(files, lambda signals: _swapped(signals, rng))

    return run


def _swapped(signals: list[list[str]], rng: Generator) -> list[str]:
    named = [i for i, fields in enumerate(signals) if len(fields) > DESCRIPTION]
    if len({signals[i][DESCRIPTION].strip() for i in named}) < 2:
        raise Incompatible("ecg-lead-swap needs a header with two leads of different names")
    first, second = (signals[i] for i in _different(signals, named, rng))
    told = f"leads {first[DESCRIPTION].strip()} and {second[DESCRIPTION].strip()} exchanged names"
    first[DESCRIPTION], second[DESCRIPTION] = second[DESCRIPTION], first[DESCRIPTION]
    return [told]


def _different(signals: list[list[str]], named: list[int], rng: Generator) -> tuple[int, int]:
    names = {i: signals[i][DESCRIPTION].strip() for i in named}
    return pick([(i, j) for i in named for j in named if i < j and names[i] != names[j]], rng)
