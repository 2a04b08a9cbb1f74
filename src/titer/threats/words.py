"""What an attacker may do to a note: replace words by their substitutes, and no more than a share of them.

Rows are float32[N, L] of word ids, 0 where the note has ended (see `core.lexicon`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from titer.core.errors import Incompatible
from titer.core.lexicon import PADDING
from titer.core.noise import Noise
from titer.core.threat import Bounds, Threat

SHARE = "% of words"
"""The unit of a budget that grows with the note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitutes:
    """Each word is the note's own or one of its substitutes: no word is added or lost, and padding stays.

    `table` int64[V, C] holds the substitutes of each word of the lexicon, 0 where there are no more; a protected word
    has none.
    """

    table: Tensor
    text: str
    shrinks: ClassVar[bool] = True

    def describe(self) -> str:
        """Return the rule as a sentence, with what tells this table from another."""
        sha = hashlib.sha256(self.table.contiguous().numpy().tobytes()).hexdigest()
        return f"{self.text} (table {sha[:12]})"

    def of(self, x: Tensor) -> Tensor:
        """Return int64[N, L, C], the substitutes of the words x [N, L]."""
        ids = x.long()
        known = ids.where((ids >= 0) & (ids < len(self.table)), PADDING)
        return self.table.to(x.device)[known]

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Put back every word that is no substitute of the note's own."""
        return torch.where(self._allowed(x_adv, x), x_adv, x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        known = (x == x.round()) & (x >= 0) & (x < len(self.table))
        return (known & self._allowed(x_adv, x)).all(1)

    def _allowed(self, x_adv: Tensor, x: Tensor) -> Tensor:
        substitute = (x_adv.unsqueeze(-1) == self.of(x)).any(-1) & (x_adv != PADDING)
        return (x_adv == x) | substitute


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOfWords:
    """At most `eps` % of the note's words change, rounded down to whole words: an l0 ball with a radius per row."""

    eps: float
    scale: Tensor
    unit: str = SHARE
    norm: ClassVar[str] = "l0"
    shrinks: ClassVar[bool] = True

    def at(self, eps: float) -> ShareOfWords:
        """Return the budget of another share."""
        return replace(self, eps=eps)

    def scaled(self, x: Tensor) -> Tensor:
        """Return the raw size of one changed word, on the device of `x`."""
        return self.scale.to(x)

    def describe(self) -> str:
        """Return the budget as a sentence."""
        return f"at most {self.eps:g} % of the note's words change"

    def radius(self, x: Tensor) -> Tensor:
        """Return int64[N], how many words of each note may change."""
        # In float64, as 5 % of 20 words must be 1 and not a rounding error below it.
        return (self.eps * (x != PADDING).sum(1).double() / 100 + 1e-9).long()

    def project(self, x_adv: Tensor, x: Tensor, bounds: Bounds | None = None) -> Tensor:  # noqa: ARG002
        """Keep the first changes of each note, as many as it may have: of two words none is changed more."""
        changed = x_adv != x
        return torch.where(changed & (changed.cumsum(1) <= self.radius(x).unsqueeze(1)), x_adv, x)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return bool[N]."""
        return (x_adv != x).sum(1) <= self.radius(x)

    def ascend(self, x_adv: Tensor, grad: Tensor, step: float | Tensor) -> Tensor:  # noqa: ARG002
        """Refuse: words are no values to step along."""
        raise Incompatible("no gradient step leads from word to word: hotflip and greedy-substitution search there")

    def sample(self, x: Tensor, noise: Noise) -> Tensor:  # noqa: ARG002
        """Refuse, as `ascend` does."""
        raise Incompatible("a budget of words has no uniform draw: hotflip and greedy-substitution search there")


def of_words(threat: Threat) -> tuple[Substitutes, ...]:
    """Return the rules of a threat that say what words may become; none where its rows are no notes."""
    return tuple(rule for rule in threat.domain if isinstance(rule, Substitutes))


def candidates(threat: Threat, x: Tensor) -> Tensor:
    """Return int64[N, L, C], what each word of x [N, L] may become under every rule of the threat; 0 where no more."""
    last, *others = reversed(of_words(threat))
    return reduce(_common, (rule.of(x) for rule in others), last.of(x))


def changes_allowed(threat: Threat, x: Tensor) -> Tensor:
    """Return int64[N], how many words of each note x [N, L] may change."""
    budget = threat.budget
    if isinstance(budget, ShareOfWords):
        return budget.radius(x)
    return torch.full((len(x),), int(budget.eps), device=x.device)


def _common(some: Tensor, others: Tensor) -> Tensor:
    kept = (some.unsqueeze(-1) == others.unsqueeze(-2)).any(-1)
    return some.where(kept, PADDING)
