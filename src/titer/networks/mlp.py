"""A multilayer perceptron for tables."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn


@network("mlp")
def mlp(*, hidden: tuple[Count, ...] = (64, 32)) -> Network:
    """Multilayer perceptron with ReLU.

    Args:
        hidden: width of each hidden layer.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        from torch import nn

        widths = (prod(shape), *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    return build
