"""One process, one attack: `python -m attack_bench.worker TASK.json` writes what it cost and what it found.

Threads: one. Seeds: 0 everywhere. What goes wrong inside a library is its result, under `error`.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attack_bench.bout import Bout
from attack_bench.jobs import ACCESS, JOBS, TITER
from attack_bench.measure import Counted, PassCost, mean_cost, pass_cost, warm_up
from attack_bench.subjects import load_rows

ERROR_LENGTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One attack's cost: CPU seconds, passes in samples, and queries float64[N] where they were attributed."""

    x_adv: Tensor
    cpu_seconds: float
    forwards: float
    backwards: float
    queries: Tensor


def main(task: dict[str, Any]) -> None:
    """Run the task and write `<out>.npz` and, last, `<out>.json`."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the libraries' own, of which there are many
    folder, out = Path(task["subject"]), Path(task["out"])
    net, x, y = load_rows(folder, task["rows"])
    warm_up()
    before = pass_cost(net, x, y)
    record: dict[str, Any] = dict(task) | {"threads": 1, "torch": torch.__version__}
    try:
        run = _titer(task, net, x, y) if task["contestant"].startswith("titer") else _peer(task, net, x, y)
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and the table says how
        record |= {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:ERROR_LENGTH]}
    else:
        record |= _costs(run, mean_cost(before, pass_cost(net, x, y)))
        np.savez_compressed(out.with_suffix(".npz"), x_adv=run.x_adv.numpy(), queries=run.queries.numpy())
    record |= {"version": _version(task["contestant"]), "peak_mib": _peak_mib()}
    out.with_suffix(".json").write_text(json.dumps(record, indent=1))


def _costs(run: Run, cost: PassCost) -> dict[str, Any]:
    return {
        "error": None,
        "cpu_seconds": run.cpu_seconds,
        "forward_pass_seconds": cost.forward,
        "both_passes_seconds": cost.both,
        "forwards": run.forwards,
        "backwards": run.backwards,
    }


def _peer(task: dict[str, Any], net: nn.Module, x: Tensor, y: Tensor) -> Run:
    from attack_bench.peers import attack_of

    attack = attack_of(task["job"], task["contestant"])
    counted = Counted(net.requires_grad_(requires_grad=True), x, owners=JOBS[task["job"]].queries).eval()
    eps = None if task["eps"] is None else task["eps"] / 255
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what the libraries draw from
    began = time.process_time()
    found = attack(Bout(net=counted, x=x.clone(), y=y.clone(), eps=eps, classes=task["classes"]))
    spent = time.process_time() - began - counted.spent
    return Run(
        x_adv=found.detach().float(),
        cpu_seconds=spent,
        forwards=counted.forwards,
        backwards=counted.backwards,
        queries=counted.queries,
    )


def _titer(task: dict[str, Any], net: nn.Module, x: Tensor, y: Tensor) -> Run:
    from attack_bench.titer_side import fight, is_there, precision_of

    job, spec = task["job"], TITER[task["job"]][task["contestant"]]
    if not is_there(spec):
        raise NotImplementedError("not there yet")
    access = ACCESS.get(job, "gradient")
    fought = fight(
        net, x, y, spec, norm=JOBS[job].norm, eps=task["eps"], access=access, precision=precision_of(task["contestant"])
    )
    return Run(
        x_adv=fought.x_adv,
        cpu_seconds=fought.cpu_seconds,
        forwards=float(fought.forwards.sum()),
        backwards=float(fought.backwards.sum()),
        queries=fought.forwards,
    )


def _version(contestant: str) -> str:
    from attack_bench.peers import PACKAGES

    library = contestant.split(" ")[0]
    return importlib.metadata.version(PACKAGES.get(library, library))


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
