"""One Markdown table a job."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from attack_bench.jobs import JOBS, Job
from attack_bench.results import Result
from attack_bench.subjects import Facts

Cells = tuple[str, ...]
SIZES = {"linf": "Linf", "l2": "median L2", "l0": "median pixels"}


def job_table(name: str, found: Sequence[tuple[Facts, str, Sequence[Result]]]) -> str:
    """Return a job's table: for each subject and level the rows of all contestants, Titer's first."""
    job = JOBS[name]
    body = [_cells(job, subject, level, one, results) for subject, level, results in found for one in results]
    lines = [f"### {job.title}", "", f"To reach: {job.reach}."]
    lines += [f"*bound* = {_bound_text(job)}." if _bound_text(job) else ""]
    lines += [f"{job.note}." if job.note else ""]
    lines += ["", markdown([_head(job), *body])]
    lines += [_union(subject, level, results) for subject, level, results in found if name == "worst-binary"]
    return "\n".join(line for line in lines if line or line == "") + "\n"


def _head(job: Job) -> Cells:
    measured = (SIZES[job.norm],) if "none" in job.levels else ()
    queried = ("median queries",) if job.queries else ()
    memory = ("peak MiB",) if job.norm == "l0" else ()
    return (
        *("model", "eps", "n", "library", "CPU s", "x bound", "Titer's / its", "forward", "backward"),
        *("robust accuracy (95 % CI)", "success", *measured, *queried, *memory),
    )


def _cells(job: Job, subject: Facts, level: str, one: Result, results: Sequence[Result]) -> Cells:
    record = one.record
    eps = "" if level == "none" else f"{subject.eps[level]:g}/255"
    own = "" if JOBS[record["job"]] is job else f", {record['job']}"
    start = (subject.name, eps, str(record["rows"]), f"{record['contestant']}{own}")
    width = len(_head(job)) - len(start)
    if one.error is not None:
        return (*start, one.error, *[""] * (width - 1))
    bound, first = one.bound, next((r for r in results if r.error is None and _is_titer(r)), None)
    share = "" if first is None or _is_titer(one) else f"{first.cpu / one.cpu:.2f}"
    assert one.interval is not None
    accuracy = f"{one.robust_accuracy:.3f} ({one.interval.low:.3f} to {one.interval.high:.3f})"
    outside = f"; {one.outside} outside" if one.outside else ""
    return (
        *start,
        f"{one.cpu:.2f}",
        "" if bound is None else f"{one.cpu / bound:.2f}",
        share,
        f"{record['forwards']:,.0f}",
        f"{record['backwards']:,.0f}",
        accuracy + outside,
        f"{one.success:.1%}",
        *_measured(job, one),
    )


def _measured(job: Job, one: Result) -> Cells:
    distance = (f"{one.distance:.4g}" if one.distance is not None else "",) if "none" in job.levels else ()
    queries = (f"{one.queries:,.0f}" if one.queries is not None else "",) if job.queries else ()
    memory = (str(one.record["peak_mib"]),) if job.norm == "l0" else ()
    return (*distance, *queries, *memory)


def _bound_text(job: Job) -> str:
    if job.queries:
        return "the forward floor: the library's own forward passes at the price of one plain float32 batch of n rows"
    if job.steps is None:
        return ""
    return f"{job.steps} x one plain float32 forward + backward of the same n rows in one batch, same process"


def _union(subject: Facts, level: str, results: Sequence[Result]) -> str:
    """Return whether Titer's worst case holds every row that any attack of any peer won."""
    titer = next((one.won for one in results if one.won is not None and _is_titer(one)), None)
    peers = [one.won for one in results if one.won is not None and not _is_titer(one)]
    if titer is None or not peers:
        return ""
    missed = int((torch.stack(peers).any(0) & ~titer).sum())
    extra = int((titer & ~torch.stack(peers).any(0)).sum())
    eps = f"{subject.eps[level]:g}/255"
    return f"\n{subject.name}, {eps}: {missed} rows won by some attack of some peer only, {extra} by Titer only."


def _is_titer(one: Result) -> bool:
    return str(one.record["contestant"]).startswith("titer")


def markdown(rows: Sequence[Cells]) -> str:
    """Return rows as a Markdown table, the first one its head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, tuple("---" for _ in head), *body))
