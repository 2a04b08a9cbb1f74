"""Grad-CAM: the places of the last convolution's maps that speak for a class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.plugins import explainer
from titer.core.protocols import Explainer
from titer.engine.attention import attention
from titer.engine.explaining import explained, needs_gradient


@explainer("gradcam", paper="Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2")
def gradcam(*, layer: str | None = None) -> Explainer:
    """Grad-CAM.

    The maps of a convolution, each weighed by the mean slope of the class's score along it; what is negative is cut
    off. The result has the maps' resolution, widened to the input's, and is the same for all channels.

    Args:
        layer: the convolution's name in the network (`net.named_modules`); the one that runs last by default.
    """

    def run(model: Model, x: Tensor, target: Tensor, *, rng: Generator) -> Tensor:
        if not len(x):
            return x.clone()
        look = attention(model, x, layer)
        needs_gradient("gradcam", model, x)

        def explain(rows: Tensor, classes: Tensor) -> Tensor:
            with torch.no_grad():
                return look(rows, classes).unsqueeze(1).expand_as(rows).contiguous()

        return explained(x, target, explain, passes=4, rng=rng)

    return run
