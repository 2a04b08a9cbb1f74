"""Detectors of streams: how soon they see that a share of what comes in is attacked, and how often they are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch

from titer.assess.cells import Cell
from titer.assess.detection_bench import Attempt, Bench
from titer.assess.plan import spec_text
from titer.assess.study_parts import Found, Part
from titer.assess.study_plans import labels, unlabelled
from titer.core.errors import Incompatible
from titer.core.plugins import make_stream_detector, plugin
from titer.core.protocols import StreamAlarm
from titer.core.randomness import generator
from titer.core.registry import Spec

SHARES = (0.0, 0.1, 0.5)
"""Shares of a stream that are attacked."""
BATCH = 25
_LOOKS = 40


def stream_parts(bench: Bench, shared: Mapping[str, Any], cell: Cell) -> Iterator[Part]:
    """Yield one part for each detector of streams, against the finds of the plan's first attack."""
    specs = bench.table.stream
    for label, given in zip(labels(specs), specs, strict=True):
        spec = unlabelled(given)
        own = dict(shared) | {"what": "stream", "spec": spec, "cell": cell.id, "batch": BATCH, "looks": _LOOKS}
        yield Part(title=f"{label}, a stream", spec=own, run=partial(_stream, bench, cell, label, spec))


def _stream(bench: Bench, cell: Cell, label: str, spec: Spec) -> Found:
    """Look at streams of which none, some or half of the rows are attacked."""
    trial = bench.trial
    names = ("detection stream", bench.source.model_label, bench.source.label, spec_text(spec))
    data = trial.training_data(trial.plan.training)
    watch = make_stream_detector(unlabelled(spec))(bench.model, data, rng=generator(trial.seed, *names))
    attempt = bench.plain(cell)[-1]
    fooled = attempt.won.nonzero().flatten()
    if not len(fooled):
        raise Incompatible(f"{label}: no input fools the model under {attempt.threat.name}, so no stream is attacked")
    if len(bench.rows) < BATCH:
        raise Incompatible(f"{label} looks at batches of {BATCH} rows, and there are {len(bench.rows)}")
    rows = []
    for share in SHARES:
        rng = generator(trial.seed, *names, share)
        rows += [{"share": share, "batch": at} | _look(bench, watch, attempt, share, at, rng) for at in range(_LOOKS)]
    assert cell.attack is not None
    frame = pd.DataFrame(rows).assign(
        part="stream", detector=label, attack=cell.attack.label, threat=attempt.threat.name,
        threat_family=attempt.threat.family, eps=float(attempt.threat.budget.eps), adaptive=False, at_stake=False,
        won=False, sample_id="", patient_id="",
    )  # fmt: skip
    return Found(frame=frame, facts={"name": plugin("detectors", spec).name, "batch": BATCH, "looks": _LOOKS})


def _look(
    bench: Bench, watch: StreamAlarm, attempt: Attempt, share: float, before: int, rng: torch.Generator
) -> dict[str, Any]:
    """Look at one batch of test rows, drawn without replacement; a share of it are finds of the attack."""
    fooled = attempt.won.nonzero().flatten().cpu()
    count = min(round(share * BATCH), len(fooled))
    bad = fooled[torch.randperm(len(fooled), generator=rng)[:count]]
    others = torch.randperm(len(bench.rows), generator=rng)
    good = others[~torch.isin(others, bad)][: BATCH - count]
    device = bench.rows.x.device
    batch = torch.cat([bench.rows.x[good.to(device)], attempt.x[bad.to(device)]])
    found = watch.look(batch, before)
    return {"p_value": found.p_value, "level": found.level, "score": found.statistic, "raised": found.drifted}
