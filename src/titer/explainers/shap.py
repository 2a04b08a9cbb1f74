"""SHAP: how each value moves a class's score, averaged over the orders in which values could be made known."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Generator, Tensor

from titer.core.extras import need
from titer.core.model import Model
from titer.core.plugins import Count, Natural, explainer
from titer.core.protocols import Explainer
from titer.core.threat import Logits
from titer.engine.explaining import explained, needs_gradient, pieces, spoken

Method = Literal["auto", "gradient", "kernel"]


@explainer(
    "shap", paper="Lundberg, Lee 2017, arXiv:1705.07874, theorem 2 (kernel); Erion et al. 2021, arXiv:1906.10670"
)
def shap(
    *, method: Method = "auto", samples: Natural = 0, baseline: float = 0.0, noise: float = 0.0, cells: Count = 7
) -> Explainer:
    """SHAP values.

    Args:
        method: `gradient` averages gradients at random points between baseline and input; `kernel` asks for scores
            with pieces of the input hidden, and needs no gradients; `auto` takes `kernel` for tables and for models
            without gradients.
        samples: points or questions a row; 0 means 20 points, and for the kernel twice the pieces and 64.
        baseline: the raw value that stands for "nothing there"; 0 is black.
        noise: of `gradient`, the standard deviation in raw units of noise on the input at each point.
        cells: of `kernel`, the parts along each side that an image is cut into.
    """
    captum = need("captum.attr", "explain")

    def run(model: Model, x: Tensor, target: Tensor, *, rng: Generator) -> Tensor:
        scores = spoken("shap", model, target)
        if method == "kernel" or (method == "auto" and (x.dim() == 2 or model.access != "gradient")):
            explain = _kernel(captum, scores, pieces(x, cells), samples, baseline)
            return explained(x, target, explain, passes=1, rng=rng)
        needs_gradient("shap", model, x)
        count = samples or 20
        points = captum.GradientShap(scores)

        def sloped(rows: Tensor, classes: Tensor) -> Tensor:
            nothing = torch.full_like(rows[:1], baseline)
            found: Tensor = points.attribute(rows, nothing, n_samples=count, stdevs=noise, target=classes)
            return found

        return explained(x, target, sloped, passes=count, rng=rng)

    return run


def _kernel(captum: Any, scores: Logits, mask: Tensor, samples: int, baseline: float) -> Any:
    """Return the kernel's attributions of rows one by one; values of one piece share its attribution."""
    count = int(mask.max()) + 1
    asked = samples or 2 * count + 64
    method = captum.KernelShap(scores)

    def explain(rows: Tensor, classes: Tensor) -> Tensor:
        found = [
            method.attribute(
                row,
                baselines=baseline,
                target=int(one),
                feature_mask=mask,
                n_samples=asked,
                perturbations_per_eval=min(asked, 64),
            )
            for row, one in zip(rows.split(1), classes, strict=True)
        ]
        # A piece's worth is that of all its values together.
        sizes = torch.bincount(mask.flatten()).to(rows)
        return torch.cat(found) / sizes[mask]

    return explain
