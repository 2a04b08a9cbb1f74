"""What attacks on the decision alone share: counted questions, starting points that reach the goal, and bisection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from titer.core.noise import Noise
from titer.core.threat import Goal
from titer.engine.rows import MICRO_BATCH, Rows
from titer.threats.balls import to_units
from titer.threats.room import limits, may_change

_NOISES, _GROWTH = 8, 4.0
_BLENDS = (0.5, 0.25)
_COARSE = 1 / 16
_BEYOND = 1.0005
_DONORS = 5
_VALUES, _DRAWN = 2**24, 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Questions about `rows`, each counted in `spent` int64[n] and never more than `queries` a row.

    `found` [n, ...] is each row's nearest input that reached the goal, and `nearest` float[n] its distance in the
    threat's norm: infinity where there is none yet, 0 where the clean row itself reaches the goal. `open` says which
    values may change. All three are updated in place; `clean` are the answers at the clean rows.
    """

    rows: Rows
    queries: int
    open: Tensor
    clean: Tensor
    spent: Tensor
    found: Tensor
    nearest: Tensor

    @property
    def left(self) -> Tensor:
        """How many questions each row has left, int64[n]."""
        return self.queries - self.spent

    @property
    def searched(self) -> Tensor:
        """Places of the rows that have a find, and could have a nearer one, int64[m]."""
        return (self.nearest.isfinite() & (self.nearest > 0) & (self.left > 0)).nonzero().flatten()

    def of(self, at: Tensor) -> Rows:
        """Return the rows at the ascending places `at` int64[m]."""
        return self.rows if len(at) == len(self.rows) else self.rows.take(at)

    def ask(self, at: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Ask once about one input for each of the rows `at` int64[m] (ascending).

        Returns:
            x_adv [m, ...] as the domain allows it, and bool[m]: it reaches the goal. A row without questions left is
            told no.
        """
        free = self.left[at] > 0
        if not bool(free.all()):
            inputs, hit = x_adv.clone(), torch.zeros_like(free)
            inputs[free], hit[free] = self.ask(at[free], x_adv[free])
            return inputs, hit
        if not len(at):
            return x_adv, free
        rows = self.of(at)
        self.spent[at] += 1
        inputs = self._legal(rows, x_adv)
        hit = rows.look(inputs)
        if not all(rule.shrinks for rule in rows.threat.domain):  # what only shrinks a change has kept its rule
            hit = hit & rows.threat.allowed(inputs, rows.x)
        distance = rows.distance(inputs)
        better = (hit & (distance < self.nearest[at])).nonzero().flatten()
        self.found[at[better]], self.nearest[at[better]] = inputs[better], distance[better]
        return inputs, hit

    def settle(self) -> None:
        """Move each find a little beyond the boundary, where another prediction cannot lose it to rounding.

        One question a row, which the search has not had; a row whose find would be lost keeps it as it is.
        """
        at = (self.nearest.isfinite() & (self.nearest > 0)).nonzero().flatten()
        if not len(at):
            return
        rows = self.of(at)
        self.spent[at] += 1
        inputs = self._legal(rows, rows.x + _BEYOND * (self.found[at] - rows.x))
        kept = rows.look(inputs) & rows.threat.allowed(inputs, rows.x)
        self.found[at[kept]], self.nearest[at[kept]] = inputs[kept], rows.distance(inputs)[kept]

    def poll(self, at: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Ask about many inputs x_adv [m, ...] of the rows `at` int64[m], a row as often as it is named there.

        The answers are for estimates: no find is kept. The caller sees to it that each row has so many questions left.
        """
        if not len(at):
            return x_adv, at.bool()
        rows = self.rows.take(at)
        self.spent.index_add_(0, at, torch.ones_like(at))
        inputs = self._legal(rows, x_adv)
        return inputs, self.rows.threat.goal.won(rows.logits(inputs), rows.y)

    def _legal(self, rows: Rows, x_adv: Tensor) -> Tensor:
        inside = rows.settled(rows.inside(x_adv))
        return inside if bool(self.open.all()) else torch.where(self.open, inside, rows.x)


def ledgers(rows: Rows, queries: int) -> Iterator[Ledger]:
    """Ask about each clean row and look for its starting point; then yield the rows in parts that fit the cache.

    Of the `queries` a row, the last one is kept for `settle`.

    A part's random numbers go on from its own count, so that they do not depend on how many parts there are.
    """
    # A stand-in would have every second answer confirmed, at more questions than the budget holds.
    rows = replace(rows, model=rows.model.exactly())
    whole = _opened(rows, queries - 1)
    seek_starts(whole)
    seed = int(torch.randint(2**62, (1,), generator=rows.rng))
    for at in torch.arange(len(rows), device=rows.x.device).split(MICRO_BATCH):
        part = replace(rows.take(at), noise=Noise(seed, rows.at[at]))
        fields = (whole.clean, whole.spent, whole.found, whole.nearest)
        clean, spent, found, nearest = (field[at] for field in fields)
        yield Ledger(
            rows=part, queries=whole.queries, open=whole.open, clean=clean, spent=spent, found=found, nearest=nearest
        )


def _opened(rows: Rows, queries: int) -> Ledger:
    clean = rows.logits(rows.x)
    nearest = torch.full((len(rows),), float("inf"), dtype=rows.x.dtype, device=rows.x.device)
    return Ledger(
        rows=rows,
        queries=queries,
        open=may_change(rows.threat, rows.x),
        clean=clean,
        spent=torch.ones_like(rows.at),
        found=rows.x.clone(),
        nearest=nearest.masked_fill(rows.won(rows.x, clean), 0.0),
    )


def seek_starts(ledger: Ledger) -> None:
    """Look for inputs of each row that reach the goal; the ledger keeps the nearest.

    Every row asks about noise, flat inputs and its negative, and how far towards the row each of them holds: they
    lead to boundaries at very different distances. Rows without any find go on with blends, with more noise, and last
    with the nearest clean rows of the batch that the model decides as the attacker wants this row decided: other
    patients' images.
    """
    everyone = ledger.rows
    noise = _noise(everyone, 0)
    others = [noise, *_ends(everyone)]
    for other in others:
        at = (ledger.left > 0).nonzero().flatten()
        inputs, hit = ledger.ask(at, other[at])
        bisect(ledger, at[hit], inputs[hit], _COARSE)
    for share in _BLENDS:
        for other in others:
            at = _missing(ledger)
            ledger.ask(at, (everyone.x + share * (other - everyone.x))[at])
    for count in range(1, _NOISES):
        noise = _noise(everyone, count)  # drawn whoever still needs it, so that no row's numbers depend on others
        at = _missing(ledger)
        ledger.ask(at, noise[at])
    for rank in range(_DONORS):
        at, donors = _donors(ledger, _missing(ledger), rank)
        ledger.ask(at, everyone.x[donors])


def _missing(ledger: Ledger) -> Tensor:
    return (ledger.nearest.isinf() & (ledger.left > 0)).nonzero().flatten()


def _noise(rows: Rows, count: int) -> Tensor:
    """Return uniform draws where a value has two limits, and else normal ones that grow with `count`, in units."""
    x, scale = rows.x, rows.threat.budget.scaled(rows.x)
    low, high = limits(rows.threat, x)
    spread = x + _GROWTH**count * scale * rows.noise.quick_normal(*x.shape[1:]).to(x)
    even = low + (high - low) * rows.noise.uniform(*x.shape[1:]).to(x)
    return torch.where(low.isfinite() & high.isfinite(), even, spread)


def _ends(rows: Rows) -> list[Tensor]:
    """Return each row with all values as low and as high as can be, and turned into its negative."""
    x, far = rows.x, _GROWTH ** (_NOISES - 1) * rows.threat.budget.scaled(rows.x)
    low, high = limits(rows.threat, x)
    negative = torch.where(low.isfinite() & high.isfinite(), low + high - x, -x)
    return [torch.where(low.isfinite(), low, x - far), torch.where(high.isfinite(), high, x + far), negative]


def _donors(ledger: Ledger, at: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the rows of `at` that have so many donors, and for each the place of its donor at this rank."""
    rows, goal = ledger.rows, ledger.rows.threat.goal
    step = max(1, _VALUES // max(ledger.clean.numel(), 1))
    takers, donors = [], []
    for some in at.split(step):
        fits = _fits(goal, ledger.clean, rows.y[some])
        apart = _apart(rows, ledger.open, some).masked_fill(~fits, float("inf"))
        if rank < apart.shape[1]:
            distance, place = apart.topk(rank + 1, dim=1, largest=False)
            known = distance[:, rank].isfinite()
            takers.append(some[known])
            donors.append(place[known, rank])
    return torch.cat([at[:0], *takers]), torch.cat([at[:0], *donors])


def _fits(goal: Goal, logits: Tensor, y: Tensor) -> Tensor:
    """Return bool[m, n]: the answer at row n would reach the goal for a row of label m."""
    every = logits.repeat(len(y), *[1] * (logits.dim() - 1))
    return goal.won(every, y.repeat_interleave(len(logits), 0)).view(len(y), len(logits))


def _apart(rows: Rows, opened: Tensor, some: Tensor) -> Tensor:
    """Return float[m, n], how far the rows `some` are from each row, in units, where values may change."""
    scale = rows.threat.budget.scaled(rows.x)
    units = to_units(torch.where(opened, rows.x, 0.0), scale.expand_as(rows.x)).flatten(1)
    return torch.cdist(units[some], units, p={"linf": float("inf"), "l1": 1.0}.get(rows.threat.budget.norm, 2.0))


def towards(ledger: Ledger, at: Tensor, ends: Tensor, share: Tensor) -> Tensor:
    """Return inputs at `share` float[m] of the way from the clean rows to `ends` [m, ...].

    On the line; under Linf each value's change is cut at that share of the largest one (Chen et al. 2020, eq. 10).
    """
    rows = ledger.of(at)
    change = ends - rows.x
    if rows.threat.budget.norm != "linf":
        return rows.x + rows.per_row(share) * change
    limit = rows.per_row(share * rows.distance(ends)) * rows.threat.budget.scaled(rows.x)
    return rows.x + torch.maximum(torch.minimum(change, limit), -limit)


def bisect(ledger: Ledger, at: Tensor, ends: Tensor, tolerance: float) -> Tensor:
    """Return inputs near the boundary, on the goal's side, between the clean rows `at` and `ends` that reach it.

    Args:
        at: int64[m], ascending.
        ends: [m, ...], inputs that reach the goal.
        tolerance: the bracket's width at which a row is done, as a share of the way.
    """
    found = ends.clone()
    low = torch.zeros(len(at), dtype=ends.dtype, device=ends.device)
    high = torch.ones_like(low)
    while bool((high - low > tolerance).any()) and bool((ledger.left[at] > 0).any()):
        middle = (low + high) / 2
        inputs, hit = ledger.ask(at, towards(ledger, at, ends, middle))
        found[hit] = inputs[hit]
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return found


def draws_at_once(ledger: Ledger, most: int) -> int:
    """Return how many directions a row are drawn at once: what the cache holds, whoever else is in the batch."""
    return max(1, min(most, _DRAWN // (MICRO_BATCH * ledger.rows.x[0].numel())))


def draw(ledger: Ledger, count: int) -> Tensor:
    """Return normal directions [n, count, ...] with zeros where a value may not change."""
    noise = ledger.rows.noise.quick_normal(count, *ledger.rows.x.shape[1:]).to(ledger.rows.x)
    return noise if bool(ledger.open.all()) else torch.where(ledger.open, noise, 0.0)
