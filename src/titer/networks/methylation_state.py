"""Methylated or not: beta values become nearly two-valued before a network reads them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from titer.core.plugins import Positive, Share, make, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import Tensor, nn


@network("methylation-state")
def methylation_state(
    *, threshold: Share = 0.3, softness: Positive = 0.03, branch: str | dict[str, Any] = "mlp"
) -> Network:
    """Network over the state of each CpG site, methylated or not, as a smooth step of its beta value.

    Takes raw beta values (`preprocess = "none"`). The step is inside the network and has a gradient everywhere, so that
    a white-box attack goes through it.

    Args:
        threshold: the beta value half way between both states.
        softness: how far from it, in beta, a site is still between them: the scale of the logistic function.
        branch: the network that reads the states, from -1 to 1.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        reads = make("networks", branch, "networks.methylation-state.branch")((prod(shape),), classes)
        return _stepped(threshold, softness, reads)

    return build


def _stepped(threshold: float, softness: float, branch: nn.Module) -> nn.Module:
    from torch import nn

    class States(nn.Module):
        """2 / (1 + exp(-(beta - threshold) / softness)) - 1 of each value, [N, ...] to [N, F]."""

        def forward(self, x: Tensor) -> Tensor:
            return ((x.flatten(1) - threshold) / (2 * softness)).tanh()

        def extra_repr(self) -> str:
            return f"threshold={threshold:g}, softness={softness:g}"

    return nn.Sequential(States(), branch)
