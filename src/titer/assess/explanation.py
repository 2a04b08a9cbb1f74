"""Explanations of a plan: where a decision rests before and after an attack."""

from __future__ import annotations

from collections.abc import Iterator

from titer.assess.study_parts import Part, Study
from titer.assess.trial import Defended, Trial


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    yield from ()


STUDY = Study(name="explanation", table=lambda plan: plan.explanation, parts=_parts)
