"""A classifier behind Gaussian noise: its base, its noise, and its answer as the mean or the majority over draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.threat import Logits

Vote = Literal["mean", "majority"]

_SMALLEST = 1e-6
_NUMBERS = 2**22
"""How many numbers are passed at once: 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Noise that follows the image: sigma times its own standard deviation over the usual one, within limits."""

    usual: float
    least: float = 0.5
    most: float = 2.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return float[N], the factor of each row [N, ...]."""
        return (x.flatten(1).std(1, correction=0) / self.usual).clamp(self.least, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed:
    """The draws of a smoothed model: `Model.draw`, and all that a certifier must know of it.

    `base` are the logits without noise. `sigma` is in raw values, one number or one a feature; `contrast` makes it
    depend on the input, for which no certificate holds.
    """

    base: Logits
    sigma: Tensor
    draws: int
    vote: Vote = "mean"
    contrast: Contrast | None = None

    def __call__(self, rng: Generator) -> Logits:
        """Return the smoothed logits of one source of noise: the logarithm of each class's share [N, K].

        A majority has no derivative; the mean's stands in for it on the way back.
        """

        def logits(x: Tensor) -> Tensor:
            chances = torch.cat([self._chances(x, rng, many) for many in self._groups(x)])
            shares = chances.mean(0)
            if self.vote == "majority":
                counted = functional.one_hot(chances.argmax(2), chances.shape[2]).to(shares).mean(0)
                shares = shares + (counted - shares).detach()
            return shares.clamp_min(_SMALLEST).log() if self.vote == "mean" else _log_votes(shares)

        return logits

    def _groups(self, x: Tensor) -> list[int]:
        """Return how many copies of all rows are passed at once, time after time: few rows alone waste a pass."""
        many = max(1, min(self.draws, _NUMBERS // max(1, x.numel())))
        return [min(many, self.draws - done) for done in range(0, self.draws, many)]

    def _chances(self, x: Tensor, rng: Generator, copies: int) -> Tensor:
        """Return the probabilities [copies, N, K] of noisy copies of the rows."""
        noisy = torch.cat([noised(x, self.spread(x), rng) for _ in range(copies)])
        return self.base(noisy).softmax(1).view(copies, len(x), -1)

    def spread(self, x: Tensor) -> Tensor:
        """Return the noise's standard deviation for each row, broadcastable against `x`, in raw values."""
        sigma = self.sigma.to(x)
        if self.contrast is None:
            return sigma
        return sigma * self.contrast(x.detach()).view(-1, *[1] * (x.dim() - 1))


def noised(x: Tensor, sigma: Tensor, rng: Generator) -> Tensor:
    """Return `x` [N, ...] under Gaussian noise of standard deviation `sigma`, drawn on the CPU."""
    return x + torch.randn(x.shape, generator=rng, dtype=x.dtype).to(x.device) * sigma


def _log_votes(shares: Tensor) -> Tensor:
    """Return the logarithm of shares of votes, those of none moved to a small one, with a derivative everywhere."""
    return ((1 - shares.shape[1] * _SMALLEST) * shares + _SMALLEST).log()
