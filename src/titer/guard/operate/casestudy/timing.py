"""What judging one image takes: the file checks where they are on, and the worker with model and detectors.

The stages' workers are asked in turn, so that whatever else the machine does is shared by all of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from titer.guard.checks.instance import check_instance
from titer.guard.checks.past import NoPast
from titer.guard.checks.series import check_series
from titer.guard.judge.messages import Ask
from titer.guard.judge.worker import Worker
from titer.guard.settings import JudgeSettings

_WARM = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A stage whose judging is timed: its bundle's folder, and which layers are on."""

    bundle: Path
    checks: bool
    detect: bool


def timed(stages: Sequence[Timed], files: Sequence[Path]) -> list[list[float]]:
    """Return the seconds that judging each file takes, of every stage; each worker answers three unmeasured ones first.

    Args:
        stages: what to time.
        files: DICOM files of one image each.

    Raises:
        WorkerFailed: a worker gives no answer.
    """
    workers = [Worker(one.bundle, JudgeSettings()) for one in stages]
    try:
        found: list[list[float]] = [[] for _ in stages]
        for place, path in enumerate([*files[:_WARM], *files]):
            for stage, worker, own in zip(stages, workers, found, strict=True):
                seconds = _judged(stage, worker, path)
                own += [seconds] if place >= len(files[:_WARM]) else []
        return found
    finally:
        for worker in workers:
            worker.stop()


def _judged(stage: Timed, worker: Worker, path: Path) -> float:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    began = time.perf_counter()
    if stage.checks:
        check_instance(path, NoPast())
        check_series([path], NoPast())
    worker.ask(Ask(files=(str(path),), digests=(digest,), watched=None if stage.detect else ()))
    return time.perf_counter() - began
