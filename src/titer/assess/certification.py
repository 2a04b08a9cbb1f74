"""Certificates of a plan: what is proven of each row, beside what attacks found."""

from __future__ import annotations

from collections.abc import Iterator

from titer.assess.study_parts import Part, Study
from titer.assess.trial import Defended, Trial


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    yield from ()


STUDY = Study(name="certification", table=lambda plan: plan.certification, parts=_parts)
