"""The rows an attack works on: one view of model, threat and random numbers, from which won rows are taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from titer.core.model import Evaluation, Model
from titer.core.noise import Noise
from titer.core.threat import Bounds, Threat
from titer.threats.balls import size
from titer.threats.room import ends
from titer.threats.rounding import relaxed, rounds, settled
from titer.threats.rules import followable

EOT_DRAWS = 16
"""Draws averaged for a randomised model (expectation over transformation)."""

LOOKS = 8
"""Draws of a randomised model that must all be won: one alone is luck that the judge's draw will not repeat."""

MICRO_BATCH = 250
"""Rows a pass: large enough for the matrix kernels, small enough for the cache."""

_BLOCK_VALUES = 2**25

RowLoss = Callable[..., Tensor]
"""From logits [n, K], y and whatever else of each row it needs to float[n]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Clean rows `x` [n, ...] with their `y`, and their places `at` int64[n] in the attack's batch.

    Passes go through here, so that they are metered, cut into micro-batches, and averaged over a randomised model.
    `limits` are the lowest and highest inputs [n, ...] where the threat is a box around each row: Linf, and rules that
    only shrink a change. Then one clip is the whole projection. In a domain of whole numbers `threat` is the relaxed
    one, in which inputs walk; `whole` is the true one, and every look is at the settled input (see `threats.rounding`),
    held to the budget too unless the attack is `free` of it.
    """

    model: Model
    threat: Threat
    x: Tensor
    y: Tensor
    at: Tensor
    noise: Noise
    rng: Generator
    limits: Bounds | None = None
    whole: Threat | None = None
    free: bool = False

    def __len__(self) -> int:
        return len(self.at)

    def take(self, keep: Tensor) -> Rows:
        """Return the rows that `keep` (mask or indices) names."""
        limits = None if self.limits is None else (self.limits[0][keep], self.limits[1][keep])
        noise = self.noise.take(keep)
        return replace(self, x=self.x[keep], y=self.y[keep], at=self.at[keep], noise=noise, limits=limits)

    def evaluate(self, x_adv: Tensor, loss: RowLoss | None = None, *own: Tensor) -> Evaluation:
        """Return logits and the input gradient of `loss` (the goal's by default) at x_adv [n, ...].

        `own` are tensors of n rows that the loss takes after logits and y.
        """
        loss, x_adv = loss or self.threat.goal.loss, self.settled(x_adv)
        parts = [self._evaluated(x_adv, part, loss, own) for part in _parts(len(self))]
        return parts[0] if len(parts) == 1 else Evaluation(*(torch.cat(both) for both in zip(*parts, strict=True)))

    def _evaluated(self, x_adv: Tensor, part: slice, loss: RowLoss, own: tuple[Tensor, ...]) -> Evaluation:
        y, kept = self.y[part], [value[part] for value in own]
        self.model.attend(self.at[part])
        return self.model.evaluate(lambda logits: loss(logits, y, *kept), x_adv[part], draws=EOT_DRAWS, rng=self.rng)

    def logits(self, x_adv: Tensor) -> Tensor:
        """Return the logits at x_adv, [n, ...]: one forward pass a row, and one draw of a randomised model."""
        x_adv = self.settled(x_adv)
        return torch.cat([self._logits(x_adv[part], self.at[part]) for part in _parts(len(self))])

    def many_logits(self, x_adv: Tensor) -> Tensor:
        """Return the logits [n, m, ...] of m inputs a row, x_adv [n, m, ...]."""
        count = x_adv.shape[1]
        flat, at = x_adv.flatten(0, 1), self.at.repeat_interleave(count)
        if self.whole is not None:
            flat = settled(self.whole, flat, self.x.repeat_interleave(count, 0), free=self.free)
        logits = torch.cat([self._logits(flat[part], at[part]) for part in _parts(len(flat))])
        shaped: Tensor = logits.unflatten(0, x_adv.shape[:2])
        return shaped

    def _logits(self, x_adv: Tensor, at: Tensor) -> Tensor:
        self.model.attend(at)
        with torch.no_grad():
            logits: Tensor = (self.model.logits if self.model.draw is None else self.model.draw(self.rng))(x_adv)
            return logits

    def won(self, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Return bool[n]: the goal is reached, confirmed in full precision where `logits` came from a fast stand-in.

        A randomised model is looked at again, and must be wrong at each look.
        """
        hit = self.threat.goal.won(logits, self.y)
        if self.model.draw is not None and bool(hit.any()):
            places = hit.nonzero().flatten()
            hit[places] = self.take(places).success(x_adv[places]) == 1.0
        elif self.model.exact is not None and bool(hit.any()):
            places = hit.nonzero().flatten()
            self.model.attend(self.at[places])
            with torch.no_grad():
                hit[places] = self.threat.goal.won(self.model.exact(self.settled(x_adv)[places]), self.y[places])
        return hit

    def look(self, x_adv: Tensor) -> Tensor:
        """Return bool[n]: the goal is reached at x_adv; one query a row."""
        return self.won(x_adv, self.logits(x_adv))

    def success(self, x_adv: Tensor) -> Tensor:
        """Return float[n], the share of looks at x_adv at which the goal is reached: 0 or 1 but for random models."""
        if self.model.draw is None:
            return self.look(x_adv).float()
        shares = torch.zeros(len(x_adv), device=x_adv.device)
        for _ in range(LOOKS):
            shares += self.threat.goal.won(self.logits(x_adv), self.y).float() / LOOKS
        return shares

    def settled(self, x_adv: Tensor) -> Tensor:
        """Return what is looked at for x_adv [n, ...]: the input itself, or the whole numbers near it."""
        return x_adv if self.whole is None else settled(self.whole, x_adv, self.x, free=self.free)

    def project(self, x_adv: Tensor) -> Tensor:
        """Return x_adv [n, ...] inside the threat."""
        return self.threat.project(x_adv, self.x) if self.limits is None else torch.clamp(x_adv, *self.limits)

    def uphill(self, x_adv: Tensor, grad: Tensor) -> Tensor:
        """Return the direction of a step along `grad` [n, ...] that `project` follows: what a clip holds back stays."""
        return self.follow(x_adv, grad) if self.limits is None else grad

    def follow(self, x_adv: Tensor, direction: Tensor) -> Tensor:
        """Return `direction` [n, ...] with zeros where a rule of the domain lets no value follow it."""
        return followable(self.threat.domain, x_adv, direction, self.x)

    def inside(self, x_adv: Tensor) -> Tensor:
        """Return x_adv inside the domain; the budget is left open, as least-perturbation attacks ignore eps."""
        for rule in self.threat.domain:
            x_adv = rule.project(x_adv, self.x)
        return x_adv

    def distance(self, x_adv: Tensor) -> Tensor:
        """Return float[n], the change in the threat's own norm and unit."""
        return size(self.threat.budget.norm, self.settled(x_adv), self.x, self.threat.budget.scaled(self.x))

    def per_row(self, values: Tensor) -> Tensor:
        """Return float[n] shaped to multiply rows of x."""
        return values.view(-1, *[1] * (self.x.dim() - 1))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + MICRO_BATCH) for start in range(0, max(count, 1), MICRO_BATCH))


def blocks(model: Model, x: Tensor, y: Tensor, threat: Threat, rng: Generator, *, free: bool = False) -> Iterator[Rows]:
    """Yield the rows in blocks that memory can hold the state of; most batches are one block.

    `free` is for attacks that ignore eps.
    """
    seed = int(torch.randint(2**62, (1,), generator=rng))
    step = max(MICRO_BATCH, _BLOCK_VALUES // max(x.shape[1:].numel(), 1))
    for at in torch.arange(len(x), device=x.device).split(step):
        yield replace(rows_of(model, x[at], y[at], threat, at, seed, rng), free=free)


def rows_of(model: Model, x: Tensor, y: Tensor, threat: Threat, at: Tensor, seed: int, rng: Generator) -> Rows:
    """Return the rows x [n, ...], which stand at the places `at` of their batch."""
    walk, noise = relaxed(threat), Noise(seed, at)
    boxed = walk.budget.norm == "linf" and all(rule.shrinks for rule in walk.domain)
    limits, whole = ends(walk, x) if boxed else None, threat if rounds(threat) else None
    return Rows(model=model, x=x, y=y, threat=walk, at=at, noise=noise, rng=rng, limits=limits, whole=whole)
