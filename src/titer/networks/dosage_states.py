"""One number for each genotype: what two copies of an allele do is learned apart from what one does."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from titer.core.plugins import make, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import Tensor, nn


@network("dosage-states")
def dosage_states(*, ploidy: Annotated[int, Field(ge=1, le=8)] = 2, branch: str | dict[str, Any] = "mlp") -> Network:
    """Network over genotypes one-hot: each site has a number for each dosage, 1 at it and 0 at the others.

    Takes raw dosages (`preprocess = "none"`). Between whole dosages the numbers follow Lagrange's polynomials, which
    have a slope at the whole ones too: a straight line between them has a kink there, where a white-box attack starts.

    Args:
        ploidy: the largest dosage of a site; 8 at most.
        branch: the network that reads the numbers, `ploidy` + 1 a site.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        count = prod(shape) * (ploidy + 1)
        reads = make("networks", branch, "networks.dosage-states.branch")((count,), classes)
        return _one_hot(ploidy, reads)

    return build


def _one_hot(ploidy: int, branch: nn.Module) -> nn.Module:
    import torch
    from torch import nn

    class States(nn.Module):
        """Lagrange's basis polynomial of each dosage, [N, ...] to [N, F * (ploidy + 1)]."""

        def forward(self, x: Tensor) -> Tensor:
            distances = [x.flatten(1) - dosage for dosage in range(ploidy + 1)]
            return torch.stack([_basis(distances, k) for k in range(ploidy + 1)], dim=2).flatten(1)

        def extra_repr(self) -> str:
            return f"ploidy={ploidy}"

    return nn.Sequential(States(), branch)


def _basis(distances: Sequence[Tensor], own: int) -> Tensor:
    """Return the polynomial that is 1 at the whole number `own` and 0 at the others, of distances from each, [N, F]."""
    out = distances[own] * 0 + 1
    for k, distance in enumerate(distances):
        if k != own:
            out = out * distance / (own - k)
    return out
