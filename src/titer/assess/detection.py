"""Detectors of a plan: what they raise an alarm on, and what an attacker who knows them gets through."""

from __future__ import annotations

from collections.abc import Iterator

from titer.assess.study_parts import Part, Study
from titer.assess.trial import Defended, Trial


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    yield from ()


STUDY = Study(name="detection", table=lambda plan: plan.detection, parts=_parts)
