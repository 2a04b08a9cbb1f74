"""Integrated gradients: the slope of a class's score, summed up on the straight way from a baseline to the input."""

from __future__ import annotations

from torch import Generator, Tensor

from titer.core.extras import need
from titer.core.model import Model
from titer.core.plugins import Count, explainer
from titer.core.protocols import Explainer
from titer.engine.explaining import explained, needs_gradient, spoken


@explainer("integrated-gradients", paper="Sundararajan, Taly, Yan 2017, arXiv:1703.01365, eq. 1 and 3")
def integrated_gradients(*, steps: Count = 32, baseline: float = 0.0) -> Explainer:
    """Integrated gradients.

    The attributions of a row add up to the class's score at the input less that at the baseline.

    Args:
        steps: points on the way (Gauss-Legendre).
        baseline: the raw value that stands for "nothing there"; 0 is black.
    """
    captum = need("captum.attr", "explain")

    def run(model: Model, x: Tensor, target: Tensor, *, rng: Generator) -> Tensor:
        scores = spoken("integrated-gradients", model, target)
        needs_gradient("integrated-gradients", model, x)
        method = captum.IntegratedGradients(scores)

        def explain(rows: Tensor, classes: Tensor) -> Tensor:
            found: Tensor = method.attribute(rows, baselines=baseline, target=classes, n_steps=steps)
            return found

        return explained(x, target, explain, passes=steps, rng=rng)

    return run
