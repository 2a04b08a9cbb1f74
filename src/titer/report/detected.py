"""What detectors see, and what an attacker who knows them gets through: the study's numbers, and what the template shows of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titer.report.load import RunFolder
from titer.report.study import Study


@dataclass(frozen=True, slots=True)
class Detected:
    """The numbers of the study; they stand in `report.json` as they are here."""


def detected(run: RunFolder, study: Study) -> Detected | None:
    """Draw the numbers from `run`; None where the plan did not ask."""
    return None if "detection" not in run.studies else Detected()


def detected_context(found: Detected | None, study: Study) -> dict[str, Any] | None:
    """Return what the template shows, None where there is nothing."""
    return None if found is None else {}
