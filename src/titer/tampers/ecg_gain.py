"""Gain: an ECG's voltages are read as larger or smaller than they were."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Generator

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import Positive, tamper
from titer.core.protocols import Tamper, Tampered
from titer.tampers._ecg import GAIN, edited

_GAIN = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(.*)")
_DEFAULT = 200.0
"""What WFDB takes a gain of 0 for, in units a millivolt."""


@tamper(
    "ecg-gain",
    files="ecg",
    misses="reading with wfdb, and the checksums of the signals: they are of stored numbers, and a gain is any number",
    threat_ids=("NISTAML.022", "AML.T0043.003"),
)
def ecg_gain(*, factor: Positive = 2.0) -> Tamper:
    """Multiply the gain of every lead (units a millivolt) in the header: voltages are divided by it.

    Args:
        factor: what the gains are multiplied by.
    """
    if factor == 1.0:
        raise SpecError("ecg-gain.factor = 1.0 changes nothing: allowed are other positive numbers")

    def edit(signals: list[list[str]]) -> list[str]:
        told = []
        for number, fields in enumerate(signals):
            found = _GAIN.fullmatch(fields[GAIN])
            if found is None:
                raise Incompatible(f"ecg-gain: the gain {fields[GAIN][:20]!r} of signal {number} is no positive number")
            before = float(found[1]) or _DEFAULT
            fields[GAIN] = f"{before * factor:.10g}{found[2]}"
            told.append(f"gain of signal {number} {before:g} became {before * factor:.10g}")
        return told

    def run(files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        del rng
        return edited(files, edit)

    return run
