"""A transformer over genes in patches."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from titer.core.plugins import Count, network
from titer.core.protocols import Network

_START = 0.02


@network(
    "gene-transformer", paper="after Vaswani et al. 2017, arXiv:1706.03762; Dosovitskiy et al. 2021, arXiv:2010.11929"
)
def gene_transformer(*, patches: Count = 32, width: Count = 32, depth: Count = 2, heads: Count = 4) -> Network:
    """Transformer over genes: neighbours in the matrix make a patch, and every patch attends to all others.

    Args:
        patches: how many patches the genes are cut into; the last one is filled up with zeros.
        width: values that describe a patch; whole multiple of `heads`.
        depth: layers of attention.
        heads: of attention in each layer.
    """
    if width % heads:
        from titer.core.errors import SpecError

        raise SpecError(
            f"networks.gene-transformer.width = {width} is not allowed: a whole multiple of heads = {heads}"
        )

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        genes = prod(shape)
        return GeneTransformer(genes, min(patches, genes), width, depth, heads, classes)

    return build


class GeneTransformer(nn.Module):
    """Patches of genes, attention with the norm before it (arXiv:2002.04745), and the mean over patches."""

    def __init__(self, genes: int, patches: int, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.length = -(-genes // patches)
        self.lacking = self.length * patches - genes
        # One map a patch: two patches hold other genes, and share nothing that one map could learn.
        self.embed = nn.Parameter(torch.randn(patches, self.length, width) * self.length**-0.5)
        self.place = nn.Parameter(_START * torch.randn(patches, width))
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [N, K] of rows [N, ...]."""
        flat = functional.pad(x.flatten(1), (0, self.lacking))
        cut = flat.view(len(x), -1, self.length)
        tokens = torch.einsum("npl,plw->npw", cut, self.embed) + self.place
        out: Tensor = self.head(self.norm(self.layers(tokens)).mean(1))
        return out


class _Layer(nn.Module):
    """Attention, then two linear layers, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.LayerNorm(width)
        self.wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens [N, P, W] after one layer."""
        mixed = self.mix(self.before(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*mixed.unbind(0))
        tokens = tokens + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = tokens + self.wide(self.after(tokens))
        return out
