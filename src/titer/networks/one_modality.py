"""One modality of several: the network that a late fusion is held against."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from titer.core.errors import SpecError
from titer.core.plugins import Count, make, network
from titer.core.protocols import Network
from titer.networks._parts import check_parts

if TYPE_CHECKING:
    from torch import Tensor, nn


@network("one-modality")
def one_modality(*, parts: tuple[Count, ...], reads: Count = 1, branch: str | dict[str, Any] = "mlp") -> Network:
    """Network that reads one modality of a row that holds several, and is blind to the others.

    Args:
        parts: how many values of the row each modality has, in order; together all of them.
        reads: which of them is read, counted from 1.
        branch: the network of that part.
    """
    where = "networks.one-modality"
    if reads > len(parts):
        raise SpecError(f"{where}.reads = {reads} is not allowed: 1 to {len(parts)}, as many as there are parts")

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        check_parts(parts, prod(shape), where)
        return _reading(parts, reads - 1, make("networks", branch, f"{where}.branch")((parts[reads - 1],), classes))

    return build


def _reading(parts: Sequence[int], which: int, branch: nn.Module) -> nn.Module:
    from torch import nn

    class Reading(nn.Module):
        """Logits [N, K] of one part of rows [N, sum of parts]."""

        def __init__(self) -> None:
            super().__init__()
            self.branch = branch

        def forward(self, x: Tensor) -> Tensor:
            own: Tensor = self.branch(x.flatten(1).split(list(parts), dim=1)[which])
            return own

    return Reading()
