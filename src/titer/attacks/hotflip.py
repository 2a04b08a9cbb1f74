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
from titer.engine.word_moves import margins, moves, without_needless
from titer.engine.words import NEVER, estimates, look, options
from titer.threats.words import changes_allowed

_LOOKS, _SPARE = 2, 12
"""Looks of a note at the most: so many for each word that may change, and some more."""

_ROUNDING = 1e-6


@attack(
    "hotflip",
    paper="Ebrahimi, Rao, Lowd, Dou 2018, arXiv:1712.06751, eq. 5 and section 3 (beam); words: section 5",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=("l0",), outputs=("classes", "labels", "value"), words=True),
)
def hotflip(*, beam: Count = 2, verified: Count = 12, at_once: Count = 1) -> Attack:
    """HotFlip on words: the first-order best substitutes, verified by forward passes, with a beam.

    Each look takes the gradient at the notes as they stand. It proposes single replacements, exchanges of a changed
    word for a fresh one where the budget is spent, and leaps of many words at once; changes that a won note does not
    need are taken back. Substitutes are those of the threat's rules. The paper's flips are of letters, and of words by
    its section 5; exchanges, leaps and the way back are ours.

    Args:
        beam: changed notes that are kept for each note.
        verified: replacements that a look's estimates name and a forward pass tries, of each note kept.
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
    """Return for each row a note that won, by as few changes as were found to do; or else the best one."""
    found, live = rows.x.clone(), torch.arange(len(rows), device=rows.x.device)
    beam = _Beam(rows.x.unsqueeze(1), margins(rows, rows.x.unsqueeze(1)))
    allowed, skipped = options(rows), torch.zeros(len(rows), dtype=torch.int64, device=rows.x.device)
    for _ in range(_LOOKS * int(changes_allowed(rows.threat, rows.x).max()) + _SPARE):
        looked = [moves(rows, notes, allowed, verified, skipped) for notes in beam.notes.unbind(1)]
        proposed = torch.cat([one.notes for one in looked], 1)
        before = beam.margins[:, 0]
        beam = _best(
            _Beam(torch.cat([beam.notes, proposed], 1), torch.cat([beam.margins, margins(rows, proposed)], 1)), width
        )
        found[live] = beam.notes[:, 0]
        # Where no proposal came nearer, the next ones in the order of the estimates are tried, until there are none.
        # Nearer is told by the margin: substitutes of the same vector would pass for progress without end.
        stuck = beam.margins[:, 0] <= before + _tie(before)
        skipped = torch.where(stuck, skipped + verified, 0)
        won = _won(rows, beam)
        keep = ~(won | stuck & torch.stack([one.ended for one in looked]).all(0))
        found[live[won]] = without_needless(rows.take(won), beam.notes[won, 0])
        if not bool(keep.any()):
            break
        live, rows, beam, allowed, skipped = live[keep], rows.take(keep), beam.take(keep), allowed[keep], skipped[keep]
    return found


def _won(rows: Rows, beam: _Beam) -> Tensor:
    """Return bool[n]: the best note has won; no pass is spent on a look where its margin says that it has not."""
    won = beam.margins[:, 0] >= 0
    if bool(won.any()):
        won[won.clone()] = rows.take(won).look(beam.notes[won, 0])
    return won


def _best(beam: _Beam, width: int) -> _Beam:
    """Return the best notes of each row, each margin once: notes of the same margin read alike."""
    order = beam.margins.sort(dim=1, descending=True, stable=True)
    again = torch.zeros_like(order.values, dtype=torch.bool)
    again[:, 1:] = order.values[:, :-1] - order.values[:, 1:] <= _tie(order.values[:, 1:])
    first = again.int().sort(dim=1, stable=True).indices[:, : min(width, again.shape[1])]
    at, kept = order.indices.gather(1, first), order.values.masked_fill(again, NEVER).gather(1, first)
    return _Beam(beam.notes.gather(1, at.unsqueeze(2).expand(-1, -1, beam.notes.shape[2])), kept)


def _tie(values: Tensor) -> Tensor:
    """Return the rounding within which margins are the same."""
    return _ROUNDING * values.abs().clamp(1.0, torch.finfo(values.dtype).max)


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
