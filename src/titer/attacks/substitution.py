"""Substitution: values are replaced one at a time, chosen by the gradient and tried by a forward pass, in a beam."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, Natural, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.rows import Rows, blocks
from titer.threats.room import choices, limits, may_change

_VALUES = 2**24
"""Values of candidates held at a time."""


@attack(
    "substitution",
    paper="Ebrahimi, Rao, Lowd, Dou 2018, arXiv:1712.06751, eq. 10 and the beam search of section 3",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l0",), ends=True),
)
def substitution(*, tries: Count = 16, beam: Count = 4, refine: Natural = 1) -> Attack:
    """Gradient-guided substitution (HotFlip) of whole numbers: genotypes, small counts, codes.

    The gradient ranks every replacement of one value by its first-order gain on the goal's margin; the best ones are
    tried by forward passes, and the best finds go on. Where the budget is spent, a fresh value takes the place of the
    changed one whose return costs least. HotFlip ranks by the loss, and has no such exchange.

    Args:
        tries: replacements tried a step, for each input of the beam.
        beam: inputs of the largest margin that go on after each step, beside one that follows the gradient alone.
        refine: further steps, as a multiple of the steps that the budget takes.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        options = _options(threat, x)
        steps = (1 + refine) * min(int(threat.budget.eps), x.shape[1:].numel())
        found = x.clone()
        for block in blocks(model, x, y, threat, rng):
            for rows in _parts(block, (beam + 1) * tries * options.shape[0]):
                found[rows.at] = _searched(rows, _Search(options=options, tries=tries, beam=beam, steps=steps))
        return found

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Values to choose from, float[V, D] (NaN where there are fewer), and how wide and long the search is."""

    options: Tensor
    tries: int
    beam: int
    steps: int


def _options(threat: Threat, x: Tensor) -> Tensor:
    if not all(bool(bound.isfinite().all()) for bound in limits(threat, x)):
        raise Incompatible("substitution chooses from a least to a largest value, and a value has no end here")
    return choices(threat, x)


def _parts(rows: Rows, candidates: int) -> Iterator[Rows]:
    count = max(1, _VALUES // (candidates * rows.x.shape[1:].numel()))
    for part in torch.arange(len(rows), device=rows.x.device).split(count):
        yield rows.take(part)


def _searched(rows: Rows, search: _Search) -> Tensor:
    """Return for each row the first find that wins, or else the best one."""
    found, live = rows.x.clone(), torch.arange(len(rows), device=rows.x.device)
    beams = rows.x.unsqueeze(1)
    # The clean row counts for less than any find, and for more than what is not allowed.
    values = torch.full((len(rows), 1), torch.finfo(torch.float32).min, device=rows.x.device)
    for _ in range(search.steps):
        candidates, legal = _candidates(rows, beams, search)
        margins = _margins(rows, rows.many_logits(candidates)).masked_fill(~legal, -float("inf"))
        lane = (beams.shape[1] - 1) * (candidates.shape[1] // beams.shape[1])
        beams, values = _next(torch.cat([candidates, beams], 1), torch.cat([margins, values], 1), lane, search.beam)
        found[live] = beams[:, 0]
        # Where no margin reaches 0 nothing has won: no forward pass is spent on a look.
        keep = ~(values[:, 0] >= 0)
        promising = (~keep).nonzero().flatten()
        if len(promising):
            keep[promising] = ~rows.take(promising).look(beams[promising, 0])
        live, rows, beams, values = live[keep], rows.take(keep), beams[keep], values[keep]
        if not len(live):
            break
    return found


def _next(inputs: Tensor, values: Tensor, lane: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the inputs that go on: the `count` best, and the one that the gradient alone leads to, at place `lane`.

    The best ones stop where no single replacement helps; what the gradient takes next leads past such a place.
    """
    best, worth = _best(inputs, values, count)
    blind, its = inputs[:, lane : lane + 1], values[:, lane : lane + 1]
    dead = (its == -float("inf")).view(-1, 1, *[1] * (inputs.dim() - 2))
    return torch.cat([best, torch.where(dead, best[:, :1], blind)], 1), torch.cat([worth, its], 1)


def _margins(rows: Rows, logits: Tensor) -> Tensor:
    """Return float[n, m], the goal's margin at logits [n, m, ...]."""
    count = logits.shape[1]
    return rows.threat.goal.margin(logits.flatten(0, 1), rows.y.repeat_interleave(count, 0)).view(-1, count)


def _candidates(rows: Rows, beams: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """Return the replacements worth a try, [n, b * tries, ...], and bool[n, b * tries], which of them are allowed."""
    count, width = beams.shape[:2]
    wide = rows.take(torch.arange(count, device=beams.device).repeat_interleave(width))
    grad = wide.evaluate(beams.flatten(0, 1), rows.threat.goal.margin).grad.flatten(1)
    at = beams.flatten(0, 1).flatten(1)
    gain, moved = _moves(wide, at, grad, search)
    legal = _allowed(wide, moved) & gain.isfinite()
    top = gain.masked_fill(~legal, -float("inf")).topk(min(search.tries, gain.shape[1]), dim=1).indices
    chosen = moved.gather(1, top.unsqueeze(2).expand(-1, -1, moved.shape[2]))
    allowed = legal.gather(1, top)
    return chosen.view(count, -1, *rows.x.shape[1:]), allowed.view(count, -1)


def _moves(wide: Rows, at: Tensor, grad: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """Return float[m, T * V], first-order gains, and [m, T * V, D]: each of the T best values at each of its options.

    A gain that is not finite belongs to no move.
    """
    clean = wide.x.flatten(1)
    changed = at != clean
    full = changed.sum(1) >= int(wide.threat.budget.eps)
    back = (grad * (clean - at)).masked_fill(~changed, -float("inf")).max(1)
    # What an exchange adds: the loss of the change that returns, for a fresh value where the budget is spent.
    cost = torch.where(full.unsqueeze(1) & ~changed, back.values.unsqueeze(1), torch.zeros_like(grad))
    gain = grad.unsqueeze(1) * (search.options - at.unsqueeze(1)) + cost.unsqueeze(1)
    shut = ~may_change(wide.threat, wide.x).flatten()
    gain = gain.masked_fill(search.options.isnan() | (search.options == at.unsqueeze(1)) | shut, -float("inf"))
    sites = gain.amax(1).topk(min(search.tries, at.shape[1]), dim=1).indices
    gains = gain.gather(2, sites.unsqueeze(1).expand(-1, len(search.options), -1)).transpose(1, 2)
    moved = _put(at, sites, search.options)
    exchanged = full.unsqueeze(1) & ~changed.gather(1, sites)
    return gains.flatten(1), _returned(moved, exchanged, back.indices, clean).flatten(1, 2)


def _put(at: Tensor, sites: Tensor, options: Tensor) -> Tensor:
    """Return [m, T, V, D]: inputs at [m, D] with the value at each of `sites` int64[m, T] replaced by each option."""
    wide = at[:, None, None].expand(-1, sites.shape[1], len(options), -1).clone()
    values = options.t()[sites].nan_to_num()
    return wide.scatter_(3, sites[:, :, None, None].expand(-1, -1, len(options), 1), values.unsqueeze(3))


def _returned(moved: Tensor, exchanged: Tensor, site: Tensor, clean: Tensor) -> Tensor:
    """Return the moves with the value at `site` int64[m] put back to the clean one where `exchanged` bool[m, T]."""
    place = site.view(-1, 1, 1, 1).expand(*moved.shape[:3], 1)
    before = clean.gather(1, site.unsqueeze(1)).view(-1, 1, 1, 1)
    kept = torch.where(exchanged[:, :, None, None], before, moved.gather(3, place))
    return moved.scatter(3, place, kept)


def _allowed(wide: Rows, moved: Tensor) -> Tensor:
    """Return bool[m, C]: inside the threat, whole numbers and linked values included."""
    threat = wide.whole or wide.threat
    flat = moved.flatten(0, 1).view(-1, *wide.x.shape[1:])
    return threat.contains(flat, wide.x.repeat_interleave(moved.shape[1], 0)).view(moved.shape[:2])


def _best(inputs: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` inputs of the largest values in each row, no input twice."""
    flat = inputs.flatten(2).double()
    weights = torch.rand(flat.shape[2], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys, left = flat @ weights.to(flat.device), values.clone()
    chosen, worth = [], []
    for _ in range(min(count, values.shape[1])):
        top = left.argmax(1, keepdim=True)
        chosen.append(top)
        worth.append(left.gather(1, top))
        left = left.masked_fill(keys == keys.gather(1, top), -float("inf"))
    index = torch.cat(chosen, 1)
    shape = (*index.shape, *[1] * (inputs.dim() - 2))
    kept = inputs.gather(1, index.view(shape).expand(-1, -1, *inputs.shape[2:]))
    taken = torch.cat(worth, 1)
    # Where fewer inputs are allowed than wanted, the best one fills the beam.
    dead = (taken == -float("inf")).view(shape)
    return torch.where(dead, kept[:, :1], kept), taken
