"""What the guard asks the worker, and what comes back.

Questions go as pickles, as the guard trusts itself; answers come as JSON, as the worker reads what strangers sent and
may have been taken over by it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from titer.core.errors import TiterError

MOST_FRAMES = 64
"""Frames of one file, where the settings say nothing else."""


class WorkerFailed(TiterError):  # noqa: N818 - says what happened
    """The worker gave no answer, and why: the verdict is FLAG (G7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question: DICOM `files` with their SHA-256 `digests`, or `rows` float32[N, ...].

    A file is as many inputs as it has frames, one where it has more than `frames` or cannot be read. `watched` are the
    inputs that detectors look at, None for all of them; with `sampled` they look at so many, spread over all that were
    read. `explain` is the input of which a heat map is wanted instead of an answer, and `method` the explainer.
    """

    files: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    rows: NDArray[np.float32] | None = None
    infer: bool = True
    watched: tuple[int, ...] | None = None
    sampled: int | None = None
    explain: int | None = None
    method: str = "gradcam"
    frames: int = MOST_FRAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Which bundle a worker holds; `detectors` are labels."""

    name: str
    model_digest: str
    bundle_version: str
    classes: tuple[str, ...]
    output: str
    detectors: tuple[str, ...]
    input: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What model and detectors say of N inputs.

    `probabilities` are [N][K], None of inputs that could not be read or where the model was not asked. `scores` are
    the detectors' by label, [N], None where they did not look. `thresholds` are those of the highest score of all
    inputs. `unread` says why an input could not be read. `png` is a heat map, base64.
    """

    inputs: int
    probabilities: list[list[float] | None] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)
    png: str | None = None


def answer_of(content: bytes) -> list[Answer | WorkerFailed]:
    """Read a worker's answers, one for each question.

    Raises:
        WorkerFailed: it is none.
    """
    try:
        return [_one(part) for part in json.loads(content)]
    except (ValueError, TypeError, KeyError):
        raise WorkerFailed("the worker's answer is damaged") from None


def _one(part: dict[str, Any]) -> Answer | WorkerFailed:
    if "failed" in part:
        return WorkerFailed(str(part["failed"]))
    part["unread"] = {int(place): str(reason) for place, reason in part["unread"].items()}
    return Answer(**part)
