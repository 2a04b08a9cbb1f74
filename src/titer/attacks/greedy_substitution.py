"""Greedy substitution: words in the order of what the answer loses without them, each by its best substitute."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.lexicon import PADDING
from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.rows import Rows, blocks
from titer.engine.words import NEVER, changed_at
from titer.threats.words import candidates, changes_allowed


@attack(
    "greedy-substitution",
    paper="Jin, Jin, Zhou, Szolovits 2020 (TextFooler), arXiv:1907.11932, algorithm 1 and eq. 2",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores", norms=("l0",), outputs=("classes", "labels", "value"), words=True),
)
def greedy_substitution() -> Attack:
    """Greedy word substitution by scores alone, as TextFooler searches.

    Words are ranked once by how much the goal's margin gains when each is left out. In that order, every substitute of
    a word is asked about, and the best one is kept if it comes nearer to the goal. TextFooler's own sources of
    substitutes (counter-fitted vectors, a sentence encoder's likeness) are replaced by the threat's rules.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        found = x.clone()
        for block in blocks(model, x, y, threat, rng):
            found[block.at] = _searched(block)
        return found

    return run


def _searched(rows: Rows) -> Tensor:
    found, live = rows.x.clone(), torch.arange(len(rows), device=rows.x.device)
    x_adv, value = rows.x.clone(), _margins(rows, rows.x.unsqueeze(1)).squeeze(1)
    allowed, order = candidates(rows.threat, rows.x), _ranked(rows)
    for rank in range(order.shape[1]):
        spent = (x_adv != rows.x).sum(1) >= changes_allowed(rows.threat, rows.x)
        keep = ~(spent | (value > 0) | (order[:, rank] < 0))
        if not bool(keep.all()):
            found[live] = x_adv
            if not bool(keep.any()):
                return found
            live, rows, x_adv, value = live[keep], rows.take(keep), x_adv[keep], value[keep]
            allowed, order = allowed[keep], order[keep]
        x_adv, value = _tried(rows, x_adv, value, allowed, order[:, rank])
    found[live] = x_adv
    return found


def _ranked(rows: Rows) -> Tensor:
    """Return int64[n, m], the places that have substitutes, most important first (eq. 2); -1 beyond the last."""
    open_places = (candidates(rows.threat, rows.x) != PADDING).any(2)
    most = int(open_places.sum(1).max())
    importance = torch.full_like(rows.x, NEVER)
    for place in open_places.any(0).nonzero().flatten().tolist():
        here = rows.take(open_places[:, place])
        without = here.x.clone()
        without[:, place] = PADDING
        importance[open_places[:, place], place] = _margins(here, without.unsqueeze(1)).squeeze(1)
    top = importance.topk(most, dim=1)
    return torch.where(top.values > NEVER, top.indices, -1)


def _tried(rows: Rows, x_adv: Tensor, value: Tensor, allowed: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the notes with the best substitute of one word each, where it comes nearer, and their margins."""
    words = allowed[torch.arange(len(places), device=places.device), places]
    # Beyond a word's own substitutes stands padding: the note as it is takes its place, and never comes nearer.
    words = torch.where(words != PADDING, words, x_adv.gather(1, places.unsqueeze(1)).long())
    notes = changed_at(x_adv, places.unsqueeze(1).expand_as(words), words)
    best = _margins(rows, notes).max(1)
    better = best.values > value
    chosen = notes[torch.arange(len(places), device=places.device), best.indices]
    return torch.where(better.unsqueeze(1), chosen, x_adv), torch.where(better, best.values, value)


def _margins(rows: Rows, notes: Tensor) -> Tensor:
    """Return float[n, m], the goal's margins of notes [n, m, L]; one query each."""
    logits, y = rows.many_logits(notes).flatten(0, 1), rows.y.repeat_interleave(notes.shape[1], 0)
    return rows.threat.goal.margin(logits, y).view(notes.shape[:2])
