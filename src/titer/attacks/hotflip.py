"""HotFlip: the gradient at a note's words names the substitutes that should do most, and passes choose among them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.rows import Rows, blocks
from titer.engine.words import NEVER, changed_at, estimates, look, options
from titer.threats.words import changes_allowed

_LOOKS, _SPARE = 2, 12
"""Looks of a note at the most: so many for each word that may change, and some more."""


@attack(
    "hotflip",
    paper="Ebrahimi, Rao, Lowd, Dou 2018, arXiv:1712.06751, eq. 5 and section 3 (beam); words: section 5",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l0",), outputs=("classes", "labels", "value"), words=True),
)
def hotflip(*, beam: Count = 2, verified: Count = 12, at_once: Count = 1) -> Attack:
    """HotFlip on words: the first-order best substitutes, verified by forward passes, with a beam.

    A note leaves as soon as it has won, so that few words change. Substitutes are those of the threat's rules, and a
    change may be taken back or exchanged later; the paper's flips are of letters, and of words by its section 5.

    Args:
        beam: changed notes that are kept for each note.
        verified: substitutes that a look's estimates name and a forward pass tries, of each note kept.
        at_once: words changed at each look; above 1 the estimates are trusted, as a training can afford.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        found = x.clone()
        for block in blocks(model, x, y, threat, rng):
            best = _trusting(block, at_once) if at_once > 1 else _searched(block, beam, verified)
            found[block.at] = best
        return found

    return run


class _Beam(NamedTuple):
    """The notes kept for each row, [n, W, L], and their margins float[n, W], best first."""

    notes: Tensor
    margins: Tensor

    def take(self, keep: Tensor) -> _Beam:
        return _Beam(self.notes[keep], self.margins[keep])


def _searched(rows: Rows, width: int, verified: int) -> Tensor:
    """Return for each row the first note that won, or else the best one."""
    found, live = rows.x.clone(), torch.arange(len(rows), device=rows.x.device)
    beam = _Beam(rows.x.unsqueeze(1), _margins(rows, rows.x.unsqueeze(1)))
    allowed, skipped = options(rows), torch.zeros(len(rows), dtype=torch.int64, device=rows.x.device)
    for _ in range(_LOOKS * int(changes_allowed(rows.threat, rows.x).max()) + _SPARE):
        looked = [_proposals(rows, notes, allowed, verified, skipped) for notes in beam.notes.unbind(1)]
        proposed = torch.cat([one.notes for one in looked], 1)
        margins = torch.cat([beam.margins, _margins(rows, proposed)], 1)
        before, beam = beam, _best(_Beam(torch.cat([beam.notes, proposed], 1), margins), width)
        found[live] = beam.notes[:, 0]
        # Where no proposal came nearer, the next ones in the order of the estimates are tried, until there are none.
        stuck = (beam.notes[:, 0] == before.notes[:, 0]).all(1)
        skipped = torch.where(stuck, skipped + verified, 0)
        ended = stuck & torch.stack([one.ended for one in looked]).all(0)
        keep = ~(rows.look(beam.notes[:, 0]) | ended)
        if not bool(keep.any()):
            break
        live, rows, beam, allowed, skipped = live[keep], rows.take(keep), beam.take(keep), allowed[keep], skipped[keep]
    return found


class _Proposed(NamedTuple):
    """Notes [n, m, L] with one change each, and bool[n]: no estimate is left after them."""

    notes: Tensor
    ended: Tensor


def _proposals(rows: Rows, x_adv: Tensor, allowed: Tensor, count: int, skipped: Tensor) -> _Proposed:
    """Return the `count` changes that the estimates put first, `skipped` int64[n] left out; the note where none is."""
    gains = estimates(rows, x_adv, look(rows, x_adv), allowed)
    order = gains.flatten(1).sort(dim=1, descending=True, stable=True)
    window = skipped.unsqueeze(1) + torch.arange(count, device=x_adv.device)
    inside = window.clamp_max(order.indices.shape[1] - 1)
    values, at = order.values.gather(1, inside), order.indices.gather(1, inside)
    places, words = at // gains.shape[2], allowed.flatten(1).gather(1, at)
    real = (values > NEVER) & (window == inside)
    words = torch.where(real, words, x_adv.gather(1, places).long())
    return _Proposed(changed_at(x_adv, places, words), ~real[:, -1])


def _margins(rows: Rows, notes: Tensor) -> Tensor:
    """Return float[n, m], the goal's margins of notes [n, m, L]."""
    logits, y = rows.many_logits(notes).flatten(0, 1), rows.y.repeat_interleave(notes.shape[1], 0)
    return rows.threat.goal.margin(logits, y).view(notes.shape[:2])


def _best(beam: _Beam, width: int) -> _Beam:
    """Return the best notes of each row, each once."""
    order = beam.margins.argsort(dim=1, descending=True, stable=True)
    notes, margins = beam.notes.gather(1, order.unsqueeze(2).expand_as(beam.notes)), beam.margins.gather(1, order)
    same = (notes.unsqueeze(2) == notes.unsqueeze(1)).all(3).tril(-1).any(2)
    kept = margins.masked_fill(same, NEVER).topk(min(width, notes.shape[1]), dim=1)
    return _Beam(notes.gather(1, kept.indices.unsqueeze(2).expand(-1, -1, notes.shape[2])), kept.values)


def _trusting(rows: Rows, at_once: int) -> Tensor:
    """Return notes changed by the estimates alone, `at_once` words a look; rows that have won change no more."""
    x_adv, allowed = rows.x.clone(), options(rows)
    most = changes_allowed(rows.threat, rows.x)
    for _ in range(-(-int(most.max()) // at_once)):
        seen = look(rows, x_adv)
        gains, choice = estimates(rows, x_adv, seen, allowed).max(2)
        left = (most - (x_adv != rows.x).sum(1)).clamp_min(0)
        order = gains.argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(order.shape[1], device=x_adv.device).expand_as(order)
        first = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, rank < left.clamp_max(at_once).unsqueeze(1))
        words = allowed.gather(2, choice.unsqueeze(2)).squeeze(2).to(x_adv)
        won = rows.threat.goal.won(seen.logits, rows.y)
        x_adv = torch.where(first & (gains > 0) & ~won.unsqueeze(1), words, x_adv)
    return x_adv
