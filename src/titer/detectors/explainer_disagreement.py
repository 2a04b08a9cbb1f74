"""Explainer disagreement: two explanations of one decision differ more where the decision rests on little."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import detector, make_explainer
from titer.core.protocols import Alarm, Detector, Explainer, TrainingData
from titer.core.randomness import generator
from titer.core.threat import Logits
from titer.engine.alarm import fitted, some
from titer.engine.attention import attention, decided_class, likeness, speaks_for
from titer.engine.explaining import needs_gradient
from titer.engine.features import answers

_BLOCK = 4
_STEPS = 8
_PROBED = 2
_IMAGES: tuple[str | dict[str, Any], ...] = ("gradcam", "integrated-gradients")
_TABLES: tuple[str | dict[str, Any], ...] = ("integrated-gradients", {"name": "shap", "method": "gradient"})


@detector(
    "explainer-disagreement",
    paper="Krishna et al. 2022, arXiv:2202.01602 (the measure); explanations can be moved: arXiv:1906.07983",
)
def explainer_disagreement(*, explainers: tuple[str | dict[str, Any], ...] | None = None) -> Detector:
    """Disagreement of explainers.

    The score is 1 - the mean cosine of the explanations, by pairs, of the class that the model says. They are compared
    by the size of their values, summed over 4 x 4 blocks and channels, as Grad-CAM is coarse.

    Args:
        explainers: specs of two explainers or more; by default Grad-CAM and integrated gradients, for tables integrated
            gradients and gradient SHAP.
    """

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Alarm:
        x = train.train.x
        specs = explainers or (_TABLES if x.dim() == 2 else _IMAGES)
        if len(specs) < 2:
            raise Incompatible(f"explainer-disagreement compares two explainers or more, not {len(specs)}")
        chosen = [make_explainer(spec, "detectors.explainer-disagreement.explainers") for spec in specs]
        seed = int(torch.randint(2**62, (1,), generator=rng))
        hard = _disagreement(model, chosen, seed)
        hard(some(train.train, _PROBED).x)  # what cannot explain this model says so now
        return fitted("explainer-disagreement", x, hard, _smooth(model, x))

    return run


def _disagreement(model: Model, chosen: list[Explainer], seed: int) -> Logits:
    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            said = decided_class(model.output, answers(model, x.detach()))
        maps = [_coarse(one(model, x.detach(), said, rng=generator(seed, "explain"))) for one in chosen]
        pairs = [likeness(a, b) for place, a in enumerate(maps) for b in maps[place + 1 :]]
        return 1 - torch.stack(pairs).mean(0)

    return score


def _smooth(model: Model, x: Tensor) -> Logits:
    """Return a stand-in with a slope: integrated gradients against Grad-CAM, or against gradient times input.

    Libraries give explanations without a graph. Slopes of slopes vanish in the flat parts of ReLU networks, but a
    change of the input still moves what it is multiplied with, and the maps of the convolution.
    """
    needs_gradient("explainer-disagreement", model, x)
    try:
        look = attention(model, x[:_PROBED])
    except Incompatible:
        look = None

    def score(rows: Tensor) -> Tensor:
        rows = rows if rows.requires_grad else rows.detach().requires_grad_()
        said = decided_class(model.output, answers(model, rows.detach()))
        path = _coarse(_integrated(model, rows, said, _STEPS))
        other = _integrated(model, rows, said, 1) if look is None else look(rows, said).unsqueeze(1).expand_as(rows)
        return 1 - likeness(path, _coarse(other))

    return score


def _integrated(model: Model, x: Tensor, said: Tensor, steps: int) -> Tensor:
    """Return integrated gradients from 0 with their graph; one step is gradient times input."""
    total = torch.zeros_like(x)
    with torch.enable_grad():
        for step in range(steps):
            point = x * ((step + 1) / steps)
            spoken = speaks_for(model.output, answers(model, point), said)
            total = total + torch.autograd.grad(spoken.sum(), point, create_graph=True)[0]
        return x * total / steps


def _coarse(values: Tensor) -> Tensor:
    """Return the sizes of attributions [N, C, ...] summed over channels and blocks; those of a table as they are."""
    size = values.abs()
    if values.dim() == 2:
        return size
    size = size.sum(1, keepdim=True)
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[values.dim() - 2]
    return pool(size, min(_BLOCK, *values.shape[2:]), ceil_mode=True)
