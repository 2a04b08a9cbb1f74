"""Random numbers that belong to rows: they depend on seed, row and draw, never on who else is in the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import count

import torch
from torch import Tensor

_ODD = -7046029254386353131  # 2^64 / golden ratio, as a signed number
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685


class Noise:
    """A counter-based source (Salmon et al. 2011, SC'11): each number is a hash of seed, row, draw and place.

    The hash is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, OOPSLA, figure 5), in 64-bit integers that every
    device computes alike. Parts of a batch (`take`) share the count of draws, so that a row's numbers are the same
    whether its neighbours are still there or not.
    """

    def __init__(self, seed: int, rows: Tensor, draws: Iterator[int] | None = None) -> None:
        self._seed = seed
        self._rows = rows
        self._draws = count() if draws is None else draws

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, keep: Tensor) -> Noise:
        """Return the noise of the rows that `keep` (mask or indices) names; draws go on from here."""
        return Noise(self._seed, self._rows[keep], self._draws)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32[n, *shape] in [0, 1), 24 random bits each."""
        return (self._bits(math.prod(shape)) & 0xFFFFFF).view(-1, *shape).float() * 2.0**-24

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32[n, *shape] (Box and Muller 1958)."""
        bits = self._bits(math.prod(shape)).view(-1, *shape)
        # Two independent 24-bit numbers of one 64-bit hash; the first is never 0, so that its logarithm is finite.
        radius = ((bits & 0xFFFFFF) + 1).float() * 2.0**-24
        angle = ((bits >> 32) & 0xFFFFFF).float() * (2.0 * math.pi * 2.0**-24)
        return torch.sqrt(-2.0 * radius.log()) * angle.cos()

    def quick_normal(self, *shape: int) -> Tensor:
        """Return float32[n, *shape], each one of 65,536 equally likely quantiles of the standard normal.

        Four numbers come out of one hash: for searches that draw for every query, where `normal` would cost a fifth of
        a small network's pass.
        """
        places = math.prod(shape)
        bits = self._bits(-(-places // 4)).view(torch.int16)[:, :places].int().add_(2**15)
        return _quantiles(bits.device).index_select(0, bits.flatten()).view(-1, *shape)

    def signs(self, *shape: int) -> Tensor:
        """Return float32[n, *shape] of -1 and 1."""
        return ((self._bits(math.prod(shape)) & 1) * 2 - 1).view(-1, *shape).float()

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return int64[n, *shape] in [0, high)."""
        return (self._bits(math.prod(shape)) & 0x7FFFFFFF).view(-1, *shape) % high

    def _bits(self, places: int) -> Tensor:
        draw = next(self._draws)
        key = _mixed(self._rows * _ODD + _wrapped(self._seed + 0x632BE59BD9B4E019 * (draw + 1)))
        steps = torch.arange(1, places + 1, device=self._rows.device) * _ODD
        return _mixed(key.unsqueeze(1) + steps)


@cache
def _quantiles(device: torch.device) -> Tensor:
    shares = (torch.arange(2**16, dtype=torch.float64) + 0.5) * 2.0**-16
    quantiles: Tensor = torch.special.ndtri(shares)
    return quantiles.float().to(device)


def _wrapped(number: int) -> int:
    """Return a Python integer as a signed 64-bit one."""
    return (number + 2**63) % 2**64 - 2**63


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _right(z, 30)) * _FIRST
    z = (z ^ _right(z, 27)) * _SECOND
    return z ^ _right(z, 31)


def _right(z: Tensor, by: int) -> Tensor:
    """Shift right without the sign, which torch's shift of int64 repeats."""
    return (z >> by) & ((1 << (64 - by)) - 1)
