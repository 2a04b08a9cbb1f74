"""What Titer's attacks cost beyond the model's own passes, by the profiler, in an own process.

`python -m attack_bench.overhead TASK.json` runs one of Titer's attacks under cProfile on CPU time, and writes the share
of time outside the network's forward passes and autograd's backward passes.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
import time
from pathlib import Path
from typing import Any

import torch

from attack_bench.jobs import ACCESS, JOBS, TITER
from attack_bench.subjects import load_rows
from attack_bench.titer_side import fight, is_there, precision_of

TOP = 8


def main(task: dict[str, Any]) -> None:
    """Profile the task's attack and write `<out>.json` and the profile's text, `<out>.txt`."""
    torch.set_num_threads(1)
    net, x, y = load_rows(Path(task["subject"]), task["rows"])
    job, spec, out = task["job"], TITER[task["job"]][task["contestant"]], Path(task["out"])
    record = dict(task) | {"error": None if is_there(spec) else "not there yet"}
    if is_there(spec):
        access = ACCESS.get(job, "gradient")
        profile = cProfile.Profile(time.process_time)
        profile.enable()
        fight(
            net,
            x,
            y,
            spec,
            norm=JOBS[job].norm,
            eps=task["eps"],
            access=access,
            precision=precision_of(task["contestant"]),
        )
        profile.disable()
        record |= _shares(pstats.Stats(profile))
        with out.with_suffix(".txt").open("w") as text:
            pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(TOP)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1))


def _shares(stats: pstats.Stats) -> dict[str, float]:
    """Return seconds in all, in forward passes (outermost module calls), and in backward passes."""
    forward = backward = 0.0
    entries: dict[tuple[str, int, str], tuple[Any, ...]] = stats.stats  # type: ignore[attr-defined]
    for (_file, _line, name), (_calls, _all, own, cumulative, _callers) in entries.items():
        if name == "_call_impl":
            forward += cumulative
        if "run_backward" in name:
            backward += own
    total = float(stats.total_tt)  # type: ignore[attr-defined]
    return {"seconds": total, "forward": forward, "backward": backward}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
