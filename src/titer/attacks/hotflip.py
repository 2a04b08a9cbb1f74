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

_SPARE = 2
"""Further looks of a note whose budget is spent: its changes may still be exchanged."""


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
    allowed = options(rows)
    steps = int(changes_allowed(rows.threat, rows.x).max()) + _SPARE
    for _ in range(steps):
        proposed = [_proposals(rows, beam.notes[:, place], allowed, verified) for place in range(beam.notes.shape[1])]
        notes = torch.cat([beam.notes, *proposed], 1)
        margins = torch.cat([beam.margins, _margins(rows, notes[:, beam.notes.shape[1] :])], 1)
        before, beam = beam, _best(_Beam(notes, margins), width)
        found[live] = beam.notes[:, 0]
        # A note is done when it has won, or when no proposal came nearer.
        won = rows.look(beam.notes[:, 0])
        stuck = (beam.notes[:, 0] == before.notes[:, 0]).all(1)
        keep = ~(won | stuck)
        if not bool(keep.any()):
            break
        live, rows, beam, allowed = live[keep], rows.take(keep), beam.take(keep), allowed[keep]
    return found


def _proposals(rows: Rows, x_adv: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Return notes [n, m, L] with the one change each that the estimates put first; the note itself where none is."""
    gains = estimates(rows, x_adv, look(rows, x_adv), allowed)
    top = gains.flatten(1).topk(min(count, gains[0].numel()), dim=1)
    places, words = top.indices // gains.shape[2], allowed.flatten(1).gather(1, top.indices)
    words = torch.where(top.values > NEVER, words, x_adv.gather(1, places).long())
    return changed_at(x_adv, places, words)


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
