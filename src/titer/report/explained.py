"""Where decisions rest before and after an attack: the study's numbers, and what the template shows of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from titer.report.load import RunFolder
from titer.report.study import Study


@dataclass(frozen=True, slots=True)
class Explained:
    """The numbers of the study; they stand in `report.json` as they are here."""


def explained(run: RunFolder, study: Study) -> Explained | None:
    """Draw the numbers from `run`; None where the plan did not ask."""
    return None if "explanation" not in run.studies else Explained()


def explained_context(found: Explained | None, study: Study) -> dict[str, Any] | None:
    """Return what the template shows, None where there is nothing."""
    return None if found is None else {}
