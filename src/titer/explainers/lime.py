"""LIME: a sparse linear model of what hiding pieces of the input does to a class's score."""

from __future__ import annotations

import warnings
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.extras import need
from titer.core.model import Model
from titer.core.plugins import Count, explainer
from titer.core.protocols import Explainer
from titer.engine.explaining import explained, pieces, spoken


@explainer("lime", paper="Ribeiro, Singh, Guestrin 2016, arXiv:1602.04938, eq. 1 and algorithm 1")
def lime(
    *,
    samples: Count = 200,
    baseline: float = 0.0,
    cells: Count = 7,
    sparsity: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01,
) -> Explainer:
    """LIME, which needs scores alone.

    Args:
        samples: questions a row, each with other pieces hidden.
        baseline: the raw value that a hidden piece takes.
        cells: parts along each side that an image is cut into; a table's features are a piece each.
        sparsity: weight of the L1 penalty (lasso); the larger, the more pieces have none.
    """
    captum = need("captum.attr", "explain")
    linear = need("captum._utils.models.linear_model", "explain")

    def run(model: Model, x: Tensor, target: Tensor, *, rng: Generator) -> Tensor:
        method = captum.Lime(spoken("lime", model, target), interpretable_model=linear.SkLearnLasso(alpha=sparsity))
        mask = pieces(x, cells)
        sizes = torch.bincount(mask.flatten()).to(x)

        def one(row: Tensor, label: Tensor) -> Tensor:
            found: Tensor = method.attribute(
                row,
                baselines=baseline,
                target=int(label),
                feature_mask=mask,
                n_samples=samples,
                perturbations_per_eval=min(samples, 64),
            )
            return found

        def explain(rows: Tensor, classes: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of the lasso: a score that no piece changes has nothing to converge to
                found = [one(row, label) for row, label in zip(rows.split(1), classes, strict=True)]
            return torch.cat(found) / sizes[mask]

        return explained(x, target, explain, passes=1, rng=rng)

    return run
