"""A recurrent network for signals: a GRU or an LSTM that reads a few samples at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from titer.core.plugins import Count, network
from titer.core.protocols import Network

if TYPE_CHECKING:
    from torch import nn


@network("gru", paper="Cho et al. 2014, arXiv:1406.1078, section 2.3; LSTM: Hochreiter, Schmidhuber 1997")
def gru(*, hidden: Count = 32, step: Count = 5, cell: Literal["gru", "lstm"] = "gru") -> Network:
    """Recurrent network for signals [leads, samples]: the mean of its states goes through one linear layer.

    Args:
        hidden: values of the state.
        step: samples that each step reads; the last ones are padded by their own edge.
        cell: `gru` or `lstm`.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return _recurrent(shape, classes, hidden, step, cell)

    return build


def _recurrent(shape: tuple[int, ...], classes: int, hidden: int, step: int, cell: str) -> nn.Module:
    from torch import Tensor, nn
    from torch.nn import functional

    leads, samples = shape
    lacking = -samples % step

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = nn.GRU if cell == "gru" else nn.LSTM
            self.cell = kind(leads * step, hidden, batch_first=True)
            self.last = nn.Linear(hidden, classes)

        def forward(self, x: Tensor) -> Tensor:
            """Return logits [N, K] of signals x [N, leads, samples]."""
            whole = functional.pad(x, (0, lacking), mode="replicate") if lacking else x
            steps = whole.unflatten(2, (-1, step)).transpose(1, 2).flatten(2)
            states, _ = self.cell(steps)
            logits: Tensor = self.last(states.mean(1))
            return logits

    return Recurrent()
