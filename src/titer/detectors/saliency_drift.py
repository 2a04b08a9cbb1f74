"""Saliency drift: does the model look elsewhere than at the sanitized copy, or than it usually does for the class?"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.plugins import Count, detector
from titer.core.protocols import Alarm, Detector, TrainingData
from titer.core.threat import Logits
from titer.engine.alarm import fitted, some
from titer.engine.attention import Attention, attention, decided_class, likeness
from titer.engine.features import answers
from titer.engine.squeezing import ends, fewer_levels, median

Against = Literal["both", "copy", "usual"]
_PASSED_ROWS = 250


@detector(
    "saliency-drift",
    paper="Selvaraju et al. 2017, arXiv:1610.02391, eq. 2 (Grad-CAM); as a detector Ye et al. 2020, arXiv:2009.02738",
)
def saliency_drift(
    *,
    against: Against = "both",
    bits: Annotated[int, Field(ge=1, le=16)] = 4,
    window: Count = 3,
    rows: Count = 2000,
) -> Detector:
    """Drift of the model's attention.

    The score is 1 - the cosine of two Grad-CAM maps for the class that the model says: of the input and its sanitized
    copy, and of the input and the mean map of the training rows that the model calls so. Each is taken in
    standard deviations of the training part, and `both` adds them up.

    Args:
        against: `copy`, `usual` or `both`.
        bits: the copy has 2 to this power levels ...
        window: ... and the median over so many places along each side; 1 leaves the median out.
        rows: training rows that the usual maps are measured on, at most.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Alarm:  # noqa: ARG001 - nothing is drawn
        part = some(train.train, rows)
        look = attention(model, part.x)
        low, high = ends(part.x, train.value_range)

        def sanitized(x: Tensor) -> Tensor:
            x = fewer_levels(x, bits, low.to(x), high.to(x))
            return median(x, window) if window > 1 else x

        drifts = {"copy": _from_copy(look, sanitized), "usual": _from_usual(look, _usual(look, part.x, train.classes))}
        chosen = list(drifts.values()) if against == "both" else [drifts[against]]
        return fitted("saliency-drift", part.x, _standardised(chosen, part.x))

    return run


def _said(look: Attention, x: Tensor) -> Tensor:
    return decided_class(look.model.output, answers(look.model, x.detach()))


def _from_copy(look: Attention, sanitized: Logits) -> Logits:
    def drift(x: Tensor) -> Tensor:
        said = _said(look, x)
        return 1 - likeness(look(x, said), look(sanitized(x), said))

    return drift


def _from_usual(look: Attention, usual: Tensor) -> Logits:
    def drift(x: Tensor) -> Tensor:
        said = _said(look, x)
        return 1 - likeness(look(x, said), usual.to(x)[said])

    return drift


def _usual(look: Attention, x: Tensor, classes: int) -> Tensor:
    """Return the mean map of each class float[K, ...], each row's map scaled to length 1; zeros where none is."""
    said, maps = zip(
        *[(_said(look, rows), look(rows, _said(look, rows))) for rows in x.split(_PASSED_ROWS)], strict=True
    )
    y, found = torch.cat(said), torch.nn.functional.normalize(torch.cat(maps).flatten(1), dim=1)
    width = _width(look.model.output, classes)
    sums = torch.zeros(width, found.shape[1], dtype=found.dtype, device=found.device).index_add(0, y, found)
    counts = torch.bincount(y, minlength=width).clamp_min(1).unsqueeze(1)
    return (sums / counts).view(width, *maps[0].shape[1:])


def _width(output: Output, classes: int) -> int:
    return 1 if output == "value" else classes


def _standardised(drifts: list[Logits], x: Tensor) -> Logits:
    """Return the sum of the drifts, each over its standard deviation on the rows x [n, ...]."""
    spreads = [
        max(float(torch.cat([one(rows).detach() for rows in x.split(_PASSED_ROWS)]).std()), 1e-6) for one in drifts
    ]

    def score(rows: Tensor) -> Tensor:
        return torch.stack([one(rows) / spread for one, spread in zip(drifts, spreads, strict=True)]).sum(0)

    return score
