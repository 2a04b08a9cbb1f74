"""What searches over words share: the gradient at the vectors of a note's words, and what a substitute would do.

Word ids have no gradient. It is taken where the network looks its words up: the first-order estimate of what a
substitute changes is the step between two vectors times that gradient (HotFlip, Ebrahimi, Rao, Lowd, Dou 2018,
arXiv:1712.06751, eq. 3 to 5; for words, section 5).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from titer.core.errors import Incompatible
from titer.core.lexicon import WordEmbedding, embedding_of
from titer.core.threat import Logits
from titer.engine.features import hooked
from titer.engine.rows import EOT_DRAWS, MICRO_BATCH, Rows
from titer.threats.words import candidates, changes_allowed

NEVER = -float("inf")


class Seen(NamedTuple):
    """A look at notes: `logits` [n, K], and the goal's margin's gradient at each word's vector, float[n, L, D]."""

    logits: Tensor
    slope: Tensor


def words_of(rows: Rows) -> WordEmbedding:
    """Return the layer that looks the model's words up.

    Raises:
        Incompatible: nobody may look into the model, or its network does not read words.
    """
    found = embedding_of(rows.model.net) if rows.model.access == "gradient" else None
    if found is None:
        raise Incompatible(
            f"{rows.model.name} gives no gradient at its words: its network must begin with a WordEmbedding"
        )
    return found


def look(rows: Rows, x_adv: Tensor) -> Seen:
    """Return logits and slopes at notes x_adv [n, L]: a forward and a backward pass each, averaged over draws."""
    layer = words_of(rows)
    parts = [_looked(rows.take(at), layer, x_adv[at]) for at in torch.arange(len(x_adv)).split(MICRO_BATCH)]
    return Seen(*(torch.cat(both) for both in zip(*parts, strict=True)))


def _looked(rows: Rows, layer: WordEmbedding, x_adv: Tensor) -> Seen:
    model = rows.model
    draws = 1 if model.draw is None else EOT_DRAWS
    total: Seen | None = None
    for _ in range(draws):
        model.attend(rows.at)
        one = _one_look(rows, layer, model.logits if model.draw is None else model.draw(rows.rng), x_adv)
        total = one if total is None else Seen(total.logits + one.logits, total.slope + one.slope)
    assert total is not None
    return Seen(total.logits / draws, total.slope / draws)


def _one_look(rows: Rows, layer: nn.Module, logits: Logits, x_adv: Tensor) -> Seen:
    vectors: list[Tensor] = []

    def keep(_layer: nn.Module, _given: object, out: Tensor) -> Tensor:
        vectors.append(out.detach().requires_grad_())
        return vectors[-1]

    with torch.enable_grad(), hooked(layer.register_forward_hook, keep):
        out = logits(x_adv)
        if len(vectors) != 1 or vectors[0].shape[:2] != x_adv.shape:
            raise Incompatible(f"{rows.model.name} does not look its words up once a pass, one vector a word")
        slope = torch.autograd.grad(rows.threat.goal.margin(out, rows.y).sum(), vectors[0])[0]
    return Seen(out.detach(), slope)


def options(rows: Rows) -> Tensor:
    """Return int64[n, L, C], what each word of the clean notes may become, itself last: a change may be taken back."""
    return torch.cat([candidates(rows.threat, rows.x), rows.x.long().unsqueeze(2)], dim=2)


def gains(rows: Rows, x_adv: Tensor, seen: Seen, allowed: Tensor) -> Tensor:
    """Return float[n, L, C], what the margin would gain to first order if words became `allowed`, legal or not."""
    layer = words_of(rows)
    with torch.no_grad():
        return torch.stack(
            [_gain(layer, x, slope, to) for x, slope, to in zip(x_adv, seen.slope, allowed, strict=True)]
        )


def estimates(rows: Rows, x_adv: Tensor, seen: Seen, allowed: Tensor) -> Tensor:
    """Return float[n, L, C], what the margin would gain by each of `allowed`; minus infinity where it may not be.

    Where a note's budget is spent, only words that have changed already may change again.
    """
    changed = x_adv != rows.x
    spent = changed.sum(1) >= changes_allowed(rows.threat, rows.x)
    closed = (allowed == 0) | (allowed == x_adv.long().unsqueeze(2)) | (spent.unsqueeze(1) & ~changed).unsqueeze(2)
    return gains(rows, x_adv, seen, allowed).masked_fill(closed, NEVER)


def _gain(layer: WordEmbedding, x: Tensor, slope: Tensor, allowed: Tensor) -> Tensor:
    """Return float[L, C] for one note: its vectors are the memory of a pass over many."""
    gain: Tensor = torch.einsum("lcd,ld->lc", layer(allowed), slope) - (layer(x) * slope).sum(1, keepdim=True)
    return gain


def changed_at(x_adv: Tensor, places: Tensor, words: Tensor) -> Tensor:
    """Return notes [n, m, L], each row's note with one word changed: the word at places int64[n, m] to words [n, m]."""
    many = x_adv.unsqueeze(1).repeat(1, places.shape[1], 1)
    return many.scatter(2, places.unsqueeze(2), words.unsqueeze(2).to(many))
