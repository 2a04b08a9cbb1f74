"""Stealing a model: the attacker asks, and a copy learns the answers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.record import Samples
from titer.core.threat import Access, Logits, Region
from titer.training.objectives import all_logits
from titer.training.weights import TrainingCost, cached, keep

_ASKED_ROWS = 250
_LARGEST_NOISE = 0.5
_PASSES = 3


def questions(x: Tensor, count: int, domain: Sequence[Region], *, rng: Generator) -> Tensor:
    """Return `count` rows to ask about, [count, ...]: the attacker's own `x` [N, ...] first, then made ones.

    Half of the made rows lie between two of the attacker's own (mixup, Zhang et al. 2018, arXiv:1710.09412, eq. 1),
    half are own rows under noise of up to half a standard deviation. All keep the rules of the domain.
    """
    own = x[torch.randperm(len(x), generator=rng)[:count]]
    made = count - len(own)
    if made <= 0:
        return own
    row = torch.randint(len(x), (made,), generator=rng)
    other = (row + torch.randint(1, max(len(x), 2), (made,), generator=rng)) % len(x)
    first, second = x[row], x[other]
    shape = (made, *[1] * (x.dim() - 1))
    share = torch.rand(shape, generator=rng)
    noise = torch.randn(first.shape, generator=rng) * x.std(0, correction=0)
    mixed = first + share * (second - first)
    noisy = first + _LARGEST_NOISE * share * noise
    made_rows = torch.where((torch.arange(made) % 2 == 0).view(shape), mixed, noisy)
    for _ in range(_PASSES):  # one rule's projection may break another
        for rule in domain:
            made_rows = rule.project(made_rows, first)
    return torch.cat([own, made_rows.to(x.dtype)])


def ask(model: Model, x: Tensor, access: Access, *, cache: Path, known_by: str, rng: Generator) -> Tensor:
    """Return the target's answers, logits as `access` shows them; each row costs one question, asked once.

    Args:
        model: the target.
        x: the questions, [n, ...].
        access: `scores` or `decision`.
        cache: where answers are kept, so that a resumed assessment asks nothing again.
        known_by: what tells this target from another one.
        rng: the draws of a randomised target.

    Raises:
        TargetFailed: a remote target does not answer.
    """
    key = _key(x, access, known_by)
    found = cached(cache, key)
    if found is not None:
        return found[0]["answers"].to(x.device)
    cpu, wall = time.process_time(), time.perf_counter()
    seen = model.limited(access)
    logits = seen.logits if seen.draw is None else seen.draw(rng)
    with torch.no_grad():
        answers = torch.cat([logits(part) for part in x.split(_ASKED_ROWS)]).float()
    cost = TrainingCost(epochs=0, cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall)
    keep(cache, key, {"answers": answers}, cost)
    return answers


def _key(x: Tensor, access: Access, known_by: str) -> str:
    rows = hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    return hashlib.sha256(json.dumps(["answers", 1, known_by, access, rows]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imitation:
    """A copy's objective: cross-entropy with the probabilities that the target answered (Hinton et al. 2015, eq. 1)."""

    output: Output

    @property
    def key(self) -> str:
        """Return the objective's name; the answers are part of the data's digest."""
        return f"imitation/{self.output}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the mean cross-entropy of a batch; `y` are the target's probabilities."""
        return self._against(logits(x), y)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return minus the loss on questions that were held out."""
        return -float(self._against(all_logits(logits, part.x), part.y))

    def _against(self, logits: Tensor, answers: Tensor) -> Tensor:
        if self.output == "labels":
            return functional.binary_cross_entropy_with_logits(logits, answers)
        return functional.cross_entropy(logits, answers)
