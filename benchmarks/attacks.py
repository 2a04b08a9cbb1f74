"""Every attack of part 2 beside the peers: same weights, same rows, one thread; prints tables, asserts nothing.

    python benchmarks/attacks.py                                   (all jobs; what ran before is read from --work)
    python benchmarks/attacks.py --jobs pgd,apgd --models cnn-at   (some of them)
    python benchmarks/attacks.py --again titer                     (run Titer's side anew, leave the peers')
    python benchmarks/attacks.py --again titer,art --out benchmarks/results/2026-11-22-attacks.md

Each attack runs in a process of its own, so that CPU time is its own; peers live in .venv-peers. Compare ratios, never
absolute times.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attack_bench.jobs import JOBS, TITER, Job
from attack_bench.results import Result, read
from attack_bench.subjects import SOURCES, Facts, facts, is_available, prepare
from attack_bench.summary import HEAD, summary_row
from attack_bench.tables import job_table, markdown

from titer.assess.manifest import hardware

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
LONGEST = 1200
"""CPU seconds after which an attack is ended, and the table says so; the clock on the wall counts other work too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for; empty choices mean all. `again` names contestants (`titer`, `art`) to run anew."""

    work: Path
    jobs: frozenset[str]
    models: frozenset[str]
    peers: frozenset[str]
    again: frozenset[str]
    only: str
    read_only: bool


def main() -> None:
    """Run what is missing and print one table a job."""
    options, out = _options()
    began = time.strftime("%Y-%m-%d")
    head = f"{began}, {json.dumps(hardware('cpu'))}, one thread a process\n"
    parts = [head, _subjects_table(options)]
    print("\n".join(parts), flush=True)
    rows = []
    for name, job in JOBS.items():
        if not options.jobs or name in options.jobs:
            found = list(_fought(name, job, options))
            parts.append(job_table(name, found))
            rows.append(summary_row(name, found))
            print(parts[-1], flush=True)
    parts.append(_overhead_table(options))
    parts.append("### In one table\n\n" + markdown([HEAD, *(row for row in rows if row is not None)]) + "\n")
    print("\n".join(parts[-2:]))
    if out is not None:
        out.write_text("\n".join(parts))


def _options() -> tuple[Options, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=_names({*JOBS, "overhead"}), help="of " + ", ".join([*JOBS, "overhead"]))
    parser.add_argument("--models", type=_names(SOURCES), help="of " + ", ".join(SOURCES))
    peers = sorted({peer.split(" ")[0] for job in JOBS.values() for peer in job.peers})
    parser.add_argument("--peers", type=_names(peers), help="of " + ", ".join(peers))
    parser.add_argument("--only", choices=("titer", "peers"), default="", help="run one side; the other's is read")
    parser.add_argument("--again", type=_names({"titer", *peers}), help="whose kept results to make anew")
    parser.add_argument("--work", type=Path, default=Path(".cache/bench-attacks"), help="where results are kept")
    parser.add_argument("--read", action="store_true", help="print what is kept, run nothing")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    given = parser.parse_args()
    chosen = {name: getattr(given, name) or frozenset() for name in ("jobs", "models", "peers", "again")}
    return Options(work=given.work.resolve(), read_only=given.read, only=given.only, **chosen), given.out


def _names(allowed: Sequence[str] | set[str] | dict[str, object]) -> object:
    def names(text: str) -> frozenset[str]:
        wanted = frozenset(text.split(","))
        if wanted - set(allowed):
            unknown = ", ".join(sorted(wanted - set(allowed)))
            raise argparse.ArgumentTypeError(f"{unknown} not known: allowed are {', '.join(sorted(allowed))}")
        return wanted

    return names


def _fought(name: str, job: Job, options: Options) -> Iterator[tuple[Facts, str, list[Result]]]:
    """Yield for each subject and level every contestant's result, Titer's first, and those of the jobs in `also`."""
    for subject in job.subjects:
        if not _wanted(subject, options):
            continue
        folder = prepare(subject, options.work)
        for level in job.levels:
            own = [_result(name, one, folder, level, options) for one in _contestants(name, job, options)]
            lent = [
                _result(other, one, folder, level, options)
                for other in job.also
                for one in _peers(JOBS[other], options)
                if subject in JOBS[other].subjects and level in JOBS[other].levels
            ]
            yield facts(folder), level, [one for one in [*own, *lent] if one is not None]


def _wanted(subject: str, options: Options) -> bool:
    chosen = not options.models or subject in options.models
    if chosen and not is_available(subject, options.work):
        print(f"{subject}: left out, its images are not under TITER_DATA", file=sys.stderr)
    return chosen and is_available(subject, options.work)


def _contestants(name: str, job: Job, options: Options) -> list[str]:
    return [*TITER[name], *_peers(job, options)]


def _peers(job: Job, options: Options) -> list[str]:
    return [one for one in job.peers if not options.peers or one.split(" ")[0] in options.peers]


def _result(job: str, contestant: str, folder: Path, level: str, options: Options) -> Result | None:
    """Return what is kept of this bout, or run it; None where it is not kept and nothing may run."""
    subject = facts(folder)
    asked = JOBS[job].rows
    task = {
        "job": job,
        "contestant": contestant,
        "subject": str(folder),
        "digest": subject.digest,
        "level": level,
        "eps": None if level == "none" else subject.eps[level],
        "rows": subject.rows if asked is None else min(asked, subject.rows),
        "classes": subject.classes,
        "out": str(_place(options, job, folder.name, level, contestant)),
    }
    if contestant.startswith("titer"):
        task["spec"] = TITER[job][contestant]
    if _may_run(contestant, options) and not _kept(task, options):
        _run("attack_bench.worker", task)
        ANEW.add(str(task["out"]))
    out = Path(str(task["out"]))
    return read(out) if out.with_suffix(".json").is_file() else None


def _may_run(contestant: str, options: Options) -> bool:
    side = "titer" if contestant.startswith("titer") else "peers"
    return not options.read_only and options.only in ("", side)


ANEW: set[str] = set()
"""Bouts of this run: a peer's that two tables show runs once."""


def _place(options: Options, job: str, subject: str, level: str, contestant: str) -> Path:
    place = options.work / "results" / job / f"{subject}-{level}" / contestant.replace(" ", "-")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _kept(task: dict[str, object], options: Options) -> bool:
    """Return whether the bout was run before on the same weights, rows and budget, and is not asked for anew."""
    library = str(task["contestant"]).split(" ")[0]
    path = Path(str(task["out"])).with_suffix(".json")
    if not path.is_file() or (library in options.again and str(task["out"]) not in ANEW):
        return False
    record = json.loads(path.read_text())
    if library == "titer" and record["error"] == "NotImplementedError: not there yet":
        return False
    same = ("digest", "eps", "rows", "spec")
    return all(record.get(key) == task.get(key) for key in same)


def _run(module: str, task: dict[str, object]) -> None:
    """Run one bout in its own process; what kills it is its result."""
    out = Path(str(task["out"]))
    for suffix in (".json", ".npz"):
        out.with_suffix(suffix).unlink(missing_ok=True)
    ours = str(task["contestant"]).startswith("titer")
    given = out.with_suffix(".task")
    given.write_text(json.dumps(task))
    command = [sys.executable if ours else str(PEERS_PYTHON), "-m", module, str(given)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    limits = partial(resource.setrlimit, resource.RLIMIT_CPU, (LONGEST, LONGEST + 5))
    done = subprocess.run(
        command, env=environment, preexec_fn=limits, capture_output=True, text=True, errors="replace", check=False
    )
    reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    if done.returncode == -signal.SIGXCPU:
        reason = f"not done after {LONGEST} CPU s"
    given.unlink()
    if not out.with_suffix(".json").is_file():
        out.with_suffix(".json").write_text(json.dumps(task | {"error": reason[:160]}))
    print(f"  {task['job']}, {out.parent.name}, {task['contestant']}", file=sys.stderr, flush=True)


def _subjects_table(options: Options) -> str:
    rows = [("model", "rows", "classes", "right when clean", "right under PGD-20 at 8/255", "mid eps", "right there")]
    for name in SOURCES:
        if not _wanted(name, options):
            continue
        one = facts(prepare(name, options.work))
        middle = f"{one.eps['mid']:g}/255"
        shares = (f"{one.kept['8']:.3f}", middle, f"{one.kept['mid']:.3f}")
        rows.append((name, str(one.rows), str(one.classes), f"{one.clean_accuracy:.3f}", *shares))
    return markdown(rows) + "\n"


def _overhead_table(options: Options) -> str:
    """Return what Titer's attacks cost beyond the model's own passes; one subject and level a job."""
    rows = [("job", "attack", "CPU s, profiled", "forward", "backward", "beyond them")]
    for name, job in JOBS.items():
        if options.jobs and not {name, "overhead"} & options.jobs:
            continue
        subject = "cnn-at" if "cnn-at" in job.subjects else job.subjects[0]
        if not _wanted(subject, options):
            continue
        level = job.levels[-1]
        rows += [_overhead(name, one, subject, level, options) for one in TITER[name]]
    title = "### Overhead beyond the model's own passes\n\nTo reach: <= 10 %.\n\n"
    return title + markdown(rows) + "\n"


def _overhead(job: str, contestant: str, subject: str, level: str, options: Options) -> tuple[str, ...]:
    folder = prepare(subject, options.work)
    one, asked = facts(folder), JOBS[job].rows
    out = options.work / "results" / job / f"overhead-{contestant.replace(' ', '-')}"
    out.parent.mkdir(parents=True, exist_ok=True)
    task: dict[str, object] = {
        "job": job,
        "contestant": contestant,
        "subject": str(folder),
        "eps": None if level == "none" else one.eps[level],
        "rows": one.rows if asked is None else min(asked, one.rows),
        "out": str(out),
    }
    stale = "titer" in options.again or not out.with_suffix(".json").is_file()
    if stale and _may_run(contestant, options):
        _run("attack_bench.overhead", task)
    record = json.loads(out.with_suffix(".json").read_text()) if out.with_suffix(".json").is_file() else task
    if "seconds" not in record:
        return (job, contestant, str(record.get("error", "not run")), "", "", "")
    seconds, forward, backward = (float(record[key]) for key in ("seconds", "forward", "backward"))
    beyond = 1 - (forward + backward) / seconds
    return (job, contestant, f"{seconds:.2f}", f"{forward:.2f}", f"{backward:.2f}", f"{beyond:.1%}")


if __name__ == "__main__":
    if importlib.util.find_spec("titer") is None:
        sys.exit("Titer is not installed here: run make bench-attacks")
    main()
