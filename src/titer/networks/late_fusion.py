"""Late fusion: one model for each modality of a patient, and a vote over what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from titer.core.plugins import Count, make, network
from titer.core.protocols import Network
from titer.networks._parts import check_parts

if TYPE_CHECKING:
    from torch import Tensor, nn


@network("late-fusion", paper="Kittler, Hatef, Duin, Matas 1998, 10.1109/34.667881, eq. 11 (sum rule)")
def late_fusion(*, parts: tuple[Count, ...], branch: str | dict[str, Any] = "mlp") -> Network:
    """Late fusion of the modalities of one patient, side by side in one row.

    Each part has a network of its own; the answer is the mean of their probabilities. They are trained together, on the
    error of the vote. Attack one modality at a time with a threat whose rule or features name it. Who owns one of M
    moves each mean by up to 1/M: safe are rows for which the others' summed lead exceeds 1, and of two modalities none.

    Args:
        parts: how many values of the row each modality has, in order; together all of them.
        branch: the network of each part.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        check_parts(parts, prod(shape), "networks.late-fusion")
        where = "networks.late-fusion.branch"
        return _voting(parts, [make("networks", branch, where)((part,), classes) for part in parts])

    return build


def _voting(parts: Sequence[int], branches: Sequence[nn.Module]) -> nn.Module:
    import torch
    from torch import nn

    class Vote(nn.Module):
        """Logits [N, K] whose softmax is the mean of the branches' probabilities, for rows [N, sum of parts]."""

        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(branches)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(1).split(list(parts), dim=1)
            votes = [branch(part).log_softmax(1) for branch, part in zip(self.branches, rows, strict=True)]
            return torch.stack(votes).logsumexp(0)

    return Vote()
