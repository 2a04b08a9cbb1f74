"""Words as numbers: what a row of a note holds, and what a network that reads words gives an attacker.

A row is float32[L] of word ids, whole numbers that index the data set's lexicon; 0 is padding. The first layer of a
network that reads words is a `WordEmbedding`, so that a gradient stops there and not at the ids, which have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from titer.core.errors import ContractError

PADDING = 0
Lexicon = Sequence[str]
"""The word of each id; the one of id 0 is empty."""


@runtime_checkable
class ReadsWords(Protocol):
    """A network that must be told the words before it can be trained: it makes its own pieces of them."""

    def read(self, lexicon: Lexicon, notes: Tensor) -> None:
        """Learn how to cut the lexicon's words into pieces from the training notes float32[N, L] alone."""
        ...


class WordEmbedding(nn.Module):
    """The vector of a word: the mean over the vectors of its pieces, so that a typo is a new word with old pieces.

    With `apart` it is the vectors of its P pieces side by side, [P * D], zeros where there is none: what a network
    needs that reads pieces and not words. Where it is `fixed`, no training moves the vectors. `table` int64[V, P] holds
    the pieces of each word, 0 where there is none, and `start` float[pieces, D] the vectors to begin at, where there
    are some; both belong to the weights.
    """

    weight: Tensor
    table: Tensor
    start: Tensor

    def __init__(self, pieces: int, width: int, *, apart: bool = False, fixed: bool = False) -> None:
        super().__init__()
        self.apart = apart
        if fixed:
            self.register_buffer("weight", torch.empty(pieces, width))
        else:
            self.weight = nn.Parameter(torch.empty(pieces, width))
        self.register_buffer("table", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("start", torch.zeros(0, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew; where there is a start, begin there again."""
        with torch.no_grad():
            nn.init.normal_(self.weight)
            if len(self.start):
                self.weight.copy_(self.start)
            self.weight[0] = 0.0

    def tell(self, table: Tensor, start: Tensor | None = None) -> None:
        """Take the pieces of each word, int64[V, P], and the vectors float[pieces, D] to begin at."""
        self.table = table.to(self.weight.device)
        if start is not None:
            self.start = start.to(self.weight)
            self.reset_parameters()

    def pieces(self, words: Tensor) -> Tensor:
        """Return int64[..., P], the pieces of words [...]; ids beyond the lexicon are a broken rule, and padding here.

        Raises:
            ContractError: nobody told the words.
        """
        if not len(self.table):
            raise ContractError("a network of words was run before it was told the words: its `read` comes first")
        ids = words.long()
        return self.table[ids.where((ids >= 0) & (ids < len(self.table)), PADDING)]

    def forward(self, words: Tensor) -> Tensor:
        """Return vectors float[..., D], or [..., P * D] apart, of the words [...] (see `pieces`)."""
        pieces = self.pieces(words)
        if self.apart:
            return nn.functional.embedding(pieces, self.weight, padding_idx=0).flatten(-2)
        count = (pieces > 0).sum(-1, keepdim=True).clamp_min(1)
        # An embedding bag sums without the [..., P, D] between, which is most of the memory of a pass.
        flat = nn.functional.embedding_bag(pieces.view(-1, pieces.shape[-1]), self.weight, mode="sum", padding_idx=0)
        mean: Tensor = flat.view(*words.shape, self.weight.shape[1]) / count
        return mean


def embedding_of(net: nn.Module | None) -> WordEmbedding | None:
    """Return the word embedding of a network, or None where it has none."""
    parts = () if net is None else net.modules()
    return next((part for part in parts if isinstance(part, WordEmbedding)), None)
