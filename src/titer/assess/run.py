"""Runs a plan: stages of tasks in worker processes, every finished cell kept, then the tables and the report."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titer.assess import collect
from titer.assess.cells import CellStore, atomic_write, sweep
from titer.assess.grid import Task, lineup, probe_source, run_cells, tasks, train
from titer.assess.manifest import describe, now
from titer.assess.plan import Plan
from titer.assess.plan_checks import check_against
from titer.assess.pool import Executor, Listener, Message, stopped, tell
from titer.assess.studies import run_studies, write_studies
from titer.assess.surrogates import check_surrogates
from titer.assess.trial import forget_data, open_trial
from titer.core.errors import SpecError
from titer.core.places import weights_cache


def quiet(_message: Message) -> None:
    """Show nothing."""


def assess(
    plan: Plan, out: Path, *, device: str = "cpu", workers: int | None = None, listener: Listener = quiet
) -> Path:
    """Run a plan, or what is left of it, into the folder `out`; return `out`.

    Raises:
        SpecError: the plan does not fit its data, or the device is not there.
        Interrupted: stopped by the user; what is finished is kept.
    """
    check_device(device)
    forget_data()
    first = open_trial(plan, 0, cache=weights_cache(), device=device)
    check_against(plan, first.data)
    for family in plan.threats:
        first.threats(family)
    first.check_models()
    check_surrogates(first)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        sweep(out)
        began = time.perf_counter()
        manifest = describe(plan, first, device)
        atomic_write(out / "plan.toml", plan.source)
        try:
            done = _run_all(plan, out, device, workers or plan.workers or available_cores(), listener)
        except KeyboardInterrupt as error:
            sweep(out)
            raise stopped(error) from None
        listener(Message("tables and statistics"))
        manifest |= {"finished": now(), "wall_seconds": round(time.perf_counter() - began, 1)}
        write_studies(plan, out, done.studies)
        collect.write(plan, out, done.cells, manifest, first.data)
    return out


@dataclass(frozen=True, slots=True)
class _Done:
    """The ids of cells and probes, and of each study's parts, in the plan's order."""

    cells: list[str]
    studies: dict[str, list[str]]


def _run_all(plan: Plan, out: Path, device: str, workers: int, listener: Listener) -> _Done:
    """Run every stage; return the ids of everything that is kept."""
    stages = tasks(plan)
    workers = min(workers, max(len(stage) for stage in stages))
    with Executor(workers, listener) as executor:
        for stage in stages:
            results = executor.map(_work, [(plan, task, str(out), device) for task in stage])
    studies: dict[str, list[str]] = {}
    for result in results:
        for name, parts in result.studies.items():
            studies.setdefault(name, []).extend(parts)
    return _Done([cell for result in results for cell in result.cells], studies)


def _work(plan: Plan, task: Task, out: str, device: str) -> _Done:
    """Do one task in a worker."""
    what = task.describe(plan)
    tell(Message(what))

    def progress(text: str, done: float) -> None:
        tell(Message(f"{what}: {text}" if done < 1 else what))

    trial = open_trial(plan, task.trial, cache=weights_cache(), device=device, progress=progress)
    if task.kind == "train":
        train(trial, task)
        tell(Message(what, done=True))
        return _Done([], {})
    store = CellStore(folder=Path(out))
    done: Callable[[str], None] = lambda cell: tell(Message(f"{what}: {cell}", done=True))  # noqa: E731
    cells = run_cells(trial, task, store, done)
    if task.surrogate is not None:
        return _Done(cells, {})
    if not task.trial:
        cells += probe_source(trial, task.model, task.defense, store)
    if not plan.has_studies:
        return _Done(cells, {})
    # Their parts are told, but not counted: the steps are known before any model is there.
    part: Callable[[str], None] = lambda title: tell(Message(f"{what}: {title}"))  # noqa: E731
    return _Done(cells, run_studies(trial, lineup(trial, task.model)[task.defense], Path(out), part))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_device(device: str) -> None:
    """Raise SpecError for a device that torch does not have here."""
    import torch

    if device == "cpu" or (device == "cuda" and torch.cuda.is_available()):
        return
    allowed = "cpu, cuda" if torch.cuda.is_available() else "cpu (torch sees no cuda device here)"
    raise SpecError(f"--device = {device!r} is not allowed: allowed are {allowed}")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the run folder: two assessments in one folder would write each other's tables."""
    with (out / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SpecError(f"--out = {str(out)!r} is in use by another assessment: wait, or name another") from None
        yield


def manifest_of(out: Path) -> dict[str, Any]:
    """Read a run folder's manifest."""
    import json

    content: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return content
