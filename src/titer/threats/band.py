"""Rules on the frequencies of a change: what an ECG's electrodes, leads and filters let through.

A change that ends with its window can have no sharp band, and a sharp band no end. The sequences of a window that come
nearest to both are Slepian's (1978, Bell System Technical Journal 57(5), section 2.1): each next one has the largest
share of its energy below the limit of all that are orthogonal to those before. They fade out at the window's ends, so
that a changed beat can stand between unchanged ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

SHARE = 1e-6
"""The largest share of a change's energy that may lie above the limit."""

_BASIS_SHARE = SHARE / 2
_ROUNDING = 4 * torch.finfo(torch.float32).eps
_SAME = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class BandLimit:
    """The change of each lead lies below `limit`, and fades out at both ends; rows are [N, leads, samples].

    It is zero outside the row's window, and all but `SHARE` of its energy over all time lies below the limit. A row
    whose values are whole steps of `resolution` may carry their rounding beside it: half a step each.

    Attributes:
        limit: in Hz.
        rate: samples a second.
        resolution: step of stored values, in raw units; 0 where there is none.
    """

    limit: float
    rate: float
    resolution: float = 0.0
    shrinks: ClassVar[bool] = False

    def describe(self) -> str:
        """Return the rule as a sentence."""
        return f"the change of each lead lies below {self.limit:g} Hz and fades out at both ends"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the row with the nearest change below the limit: an orthogonal projection."""
        return x + self.along(x_adv - x)

    def along(self, direction: Tensor) -> Tensor:
        """Return the part of `direction` [N, leads, samples] that lies below the limit."""
        basis = _cast(direction.shape[-1], self.limit / self.rate, direction.dtype, direction.device)
        return (direction @ basis.T) @ basis

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N], with no more slack than the rounding of float32 and of stored values explains."""
        change = x_adv - x
        # What the sequences leave over bounds the energy above: for what `project` returned, no more is asked.
        rest = _length(change - self.along(change))
        sure: Tensor = (rest <= (SHARE**0.5 - _BASIS_SHARE**0.5) * _length(change)).flatten(1).all(1)
        if bool(sure.all()):
            return sure
        open_rows = ~sure
        return sure.index_copy(0, open_rows.nonzero().flatten(), self._holds(x_adv[open_rows], x[open_rows]))

    def _holds(self, x_adv: Tensor, x: Tensor) -> Tensor:
        change = x_adv.double() - x.double()
        above = energy_above(change, self.limit / self.rate).sqrt()
        rounding = _length(torch.maximum(x.abs(), x_adv.abs()) * _ROUNDING)
        if self.resolution > 0:
            steps = x_adv / self.resolution
            stored = ((steps - steps.round()).abs() <= _SAME).flatten(1).all(1)
            half = self.resolution / 2 * x.shape[-1] ** 0.5
            rounding = rounding + half * stored.view(-1, *[1] * (rounding.dim() - 1))
        inside: Tensor = (above <= SHARE**0.5 * _length(change) + rounding).flatten(1).all(1)
        return inside


def energy_above(change: Tensor, limit: float) -> Tensor:
    """Return float64[N, leads]: the energy of changes [N, leads, samples] above `limit`, in cycles a sample.

    The change is zero outside its window, so that its spectrum is continuous; the integral over the band is exact.
    """
    below = _concentration(change.shape[-1], limit).to(change.device)
    return (change.square().sum(-1) - ((change @ below) * change).sum(-1)).clamp_min(0.0)


@lru_cache(maxsize=8)
def slepian(samples: int, limit: float) -> Tensor:
    """Return the sequences float64[K, samples] with all but half of `SHARE` of their energy below `limit`, orthonormal.

    Args:
        samples: length of the window.
        limit: in cycles a sample; all sequences where it is half a cycle or more.
    """
    if limit >= 0.5:
        return torch.eye(samples, dtype=torch.float64)
    from scipy.signal.windows import dpss

    count = min(int(2 * samples * limit) + 2, samples)
    sequences, shares = dpss(samples, samples * limit, count, return_ratios=True)
    return torch.from_numpy(np.ascontiguousarray(sequences[shares >= 1 - _BASIS_SHARE]))


@lru_cache(maxsize=8)
def _cast(samples: int, limit: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return slepian(samples, limit).to(device, dtype)


@lru_cache(maxsize=8)
def _concentration(samples: int, limit: float) -> Tensor:
    """Return float64[samples, samples]: as a quadratic form, the energy below `limit` (Slepian 1978, eq. 9)."""
    apart = torch.arange(samples, dtype=torch.float64)
    apart = apart.unsqueeze(0) - apart.unsqueeze(1)
    limit = min(limit, 0.5)
    form: Tensor = 2 * limit * torch.special.sinc(2 * limit * apart)
    return form


def _length(rows: Tensor) -> Tensor:
    """Return float64[N, leads], the Euclidean length of each lead."""
    length: Tensor = torch.linalg.vector_norm(rows.double(), dim=-1)
    return length
