"""Randomised smoothing: a radius that holds with a stated confidence, for any model that can be asked many times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import beta, norm
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import Count, Positive, Share, certifier
from titer.core.protocols import Certificates, Certifier
from titer.core.threat import Logits, Threat
from titer.engine.smoothing import Smoothed, noised

_NORMS = ("l2",)
_ABSTAINED = -1
_SAME = 1e-4


class _Base(NamedTuple):
    logits: Logits
    sigma: float


@certifier("smoothing", paper="Cohen, Rosenfeld, Kolter 2019, arXiv:1902.02918, theorem 1 and CERTIFY", norms=_NORMS)
def smoothing(
    *,
    sigma: Positive | None = None,
    selection: Count = 100,
    draws: Count = 1000,
    alpha: Share = 0.001,
    batch: Count = 1000,
) -> Certifier:
    """Randomised smoothing.

    What is certified is the class that the model gives most often under Gaussian noise. Its share is bounded from below
    (Clopper, Pearson 1934); with the bound above one half the radius in l2 is sigma times its normal quantile, else
    the row abstains. Each radius is wrong with a probability of at most alpha.

    Args:
        sigma: standard deviation of the noise in the threat's unit; left out, that of the randomized-smoothing defence.
        selection: draws that choose the class.
        draws: draws that bound its share; the largest radius that can be proven grows with them.
        alpha: probability that a certificate is wrong.
        batch: noisy inputs passed at once.
    """

    def run(model: Model, x: Tensor, threat: Threat, *, rng: Generator) -> Certificates:
        base = _base(model, x, threat, sigma)
        noise = base.sigma * threat.budget.scaled(x)
        rows = [_row(base.logits, row, noise, (selection, draws), batch, rng) for row in x.split(1)]
        prediction = torch.tensor([chosen for chosen, _ in rows], device=x.device)
        counts = np.array([count for _, count in rows])
        radius = torch.from_numpy(base.sigma * norm.ppf(lower_bound(counts, draws, alpha))).to(x)
        proven = radius > 0
        return Certificates(
            prediction=torch.where(proven, prediction, _ABSTAINED),
            radius=radius.clamp(0.0, threat.budget.eps),
            confidence=1.0 - alpha,
        )

    return run


def lower_bound(count: np.ndarray, draws: int, alpha: float) -> np.ndarray:
    """Return the Clopper-Pearson lower bound of a share seen `count` times in `draws`, wrong with probability alpha."""
    bound: np.ndarray = beta.ppf(alpha, np.maximum(count, 1), draws - count + 1)
    return np.where(count > 0, bound, 0.0)


def _row(
    logits: Logits, x: Tensor, sigma: Tensor, draws: tuple[int, int], batch: int, rng: Generator
) -> tuple[int, int]:
    """Return the class that noise gives most often around `x` [1, ...], and how often in draws of its own."""
    chosen = int(_counts(logits, x, sigma, draws[0], batch, rng).argmax())
    return chosen, int(_counts(logits, x, sigma, draws[1], batch, rng)[chosen])


def _counts(logits: Logits, x: Tensor, sigma: Tensor, draws: int, batch: int, rng: Generator) -> Tensor:
    """Return int64[K]: how often each class is given."""
    total: Tensor | None = None
    for start in range(0, draws, batch):
        many = x.expand(min(batch, draws - start), *x.shape[1:])
        with torch.no_grad():
            out = logits(noised(many, sigma, rng))
        counts = torch.bincount(out.argmax(1), minlength=out.shape[1])
        total = counts if total is None else total + counts
    assert total is not None
    return total


def _base(model: Model, x: Tensor, threat: Threat, sigma: float | None) -> _Base:
    """Return what is asked under noise, and the noise in the threat's unit."""
    if threat.budget.norm not in _NORMS:
        raise Incompatible(f"{threat.name}: smoothing proves a radius in l2, not in {threat.budget.norm}")
    if model.output != "classes":
        raise Incompatible(f"smoothing certifies classes, and {model.name} returns {model.output}")
    smoothed = model.draw
    if isinstance(smoothed, Smoothed):
        return _Base(smoothed.base, _own(smoothed, x, threat) if sigma is None else sigma)
    if smoothed is not None:
        raise Incompatible(f"{model.name} is randomised in a way of its own: its draws are not independent under noise")
    if sigma is None:
        raise Incompatible(f"{model.name} is not smoothed: set sigma, or train it with randomized-smoothing")
    return _Base(model.logits, sigma)


def _own(smoothed: Smoothed, x: Tensor, threat: Threat) -> float:
    """Return the noise that the model was smoothed with, in the threat's unit."""
    if smoothed.contrast is not None:
        raise Incompatible(
            "the noise follows the image, and no certificate holds for that (arXiv:2110.05365): set sigma to certify "
            "the same network under one noise for all"
        )
    scale = threat.budget.scaled(x)
    free = torch.broadcast_tensors(scale, smoothed.sigma.to(x))
    ratio = (free[1] / free[0])[free[0] > 0]
    if not len(ratio) or float(ratio.max() - ratio.min()) > _SAME * float(ratio.max()):
        raise Incompatible(f"{threat.name}: the model's noise is not the same in every value of this unit: set sigma")
    return float(ratio.mean())
