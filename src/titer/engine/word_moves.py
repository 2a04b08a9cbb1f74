"""Moves of a search over words that the gradient names: a word changed or exchanged, many at once, needless ones back.

Everything is first order: the step between two words' vectors times the gradient at the note as it stands (HotFlip,
Ebrahimi et al. 2018, arXiv:1712.06751, eq. 5). The caller verifies by forward passes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from titer.engine.rows import Rows
from titer.engine.words import NEVER, changed_at, gains, look
from titer.threats.words import changes_allowed

FIRST_LEAP = 2


class Moves(NamedTuple):
    """Notes [n, m, L] that one look proposes, and bool[n]: no replacement is left after them."""

    notes: Tensor
    ended: Tensor


def margins(rows: Rows, notes: Tensor) -> Tensor:
    """Return float[n, m], the goal's margins of notes [n, m, L]; one forward pass each."""
    logits, y = rows.many_logits(notes).flatten(0, 1), rows.y.repeat_interleave(notes.shape[1], 0)
    return rows.threat.goal.margin(logits, y).view(notes.shape[:2])


def moves(rows: Rows, x_adv: Tensor, allowed: Tensor, count: int, skipped: Tensor) -> Moves:
    """Return what the gradient at notes x_adv [n, L] proposes: `count` replacements and all leaps.

    Args:
        rows: the clean notes.
        x_adv: where the search stands.
        allowed: int64[n, L, C], see `options`.
        count: replacements a note.
        skipped: int64[n], how many of the best replacements were tried before, and are left out.
    """
    gain = gains(rows, x_adv, look(rows, x_adv), allowed)
    notes, ended = _replacements(rows, x_adv, allowed, gain, count, skipped)
    return Moves(torch.cat([notes, _leaps(rows, x_adv, allowed, gain)], 1), ended)


def _replacements(
    rows: Rows, x_adv: Tensor, allowed: Tensor, gain: Tensor, count: int, skipped: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the replacements of one word with the largest estimates; the note itself where there is none.

    Where the budget is spent, a word that was not changed takes the place of the changed one whose return costs least.
    """
    changed = x_adv != rows.x
    fresh = ~changed & (changed.sum(1) >= changes_allowed(rows.threat, rows.x)).unsqueeze(1)
    back = gain[:, :, -1].masked_fill(~changed, NEVER).max(1)
    returned = torch.where(fresh, back.values.unsqueeze(1), 0.0).unsqueeze(2)
    closed = (allowed == 0) | (allowed == x_adv.long().unsqueeze(2)) | (returned == NEVER)
    order = (gain + returned).masked_fill(closed, NEVER).flatten(1).sort(dim=1, descending=True, stable=True)
    window = skipped.unsqueeze(1) + torch.arange(count, device=x_adv.device)
    inside = window.clamp_max(order.indices.shape[1] - 1)
    at = order.indices.gather(1, inside)
    real = (order.values.gather(1, inside) > NEVER) & (window == inside)
    places = at // gain.shape[2]
    words = torch.where(real, allowed.flatten(1).gather(1, at), x_adv.gather(1, places).long())
    notes = changed_at(x_adv, places, words)
    at_back = back.indices.view(-1, 1, 1).expand(-1, count, 1)
    own = rows.x.unsqueeze(1).expand_as(notes).gather(2, at_back)
    exchanged = (fresh.gather(1, places) & real).unsqueeze(2)
    return notes.scatter(2, at_back, torch.where(exchanged, own, notes.gather(2, at_back))), ~real[:, -1]


def _leaps(rows: Rows, x_adv: Tensor, allowed: Tensor, gain: Tensor) -> Tensor:
    """Return notes [n, m, L] with 2, 4, 8 ... words moved at once, and all, to where the estimates together lead.

    That is the note that a linear model would have the budget spent on: at each place the best word, at the best places
    (a step of Frank and Wolfe 1956, 10.1002/nav.3800030109, cut to so many words).
    """
    relative = gain - gain[:, :, -1:]  # to the note's own word, which is the last
    best = relative.masked_fill(allowed == 0, NEVER).max(2)
    word = allowed.gather(2, best.indices.unsqueeze(2)).squeeze(2).to(x_adv)
    aim = _afforded(rows, word, best.values)
    worth = torch.where(aim == rows.x, 0.0, best.values)
    now = -gain[:, :, -1]
    rank = _rank((worth - now).masked_fill(aim == x_adv, NEVER))
    notes, size = [aim], FIRST_LEAP
    while size < int(changes_allowed(rows.threat, rows.x).max()):
        moved = rank < size
        notes.append(_afforded(rows, torch.where(moved, aim, x_adv), torch.where(moved, worth, now)))
        size *= 2
    return torch.stack(notes, 1)


def _afforded(rows: Rows, words: Tensor, worth: Tensor) -> Tensor:
    """Return notes of `words` [n, L] whose changes are the most worth ones, as many as the budget allows."""
    rank = _rank(worth.masked_fill(words == rows.x, NEVER))
    return torch.where(rank < changes_allowed(rows.threat, rows.x).unsqueeze(1), words, rows.x)


def _rank(values: Tensor) -> Tensor:
    """Return int64[n, L], the place of each value in its row's falling order."""
    return values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def without_needless(rows: Rows, x_adv: Tensor) -> Tensor:
    """Return notes that have won, x_adv [n, L], with changes taken back as long as they still win.

    Each look tries every changed word's return, then the 1, 2, 4 ... cheapest returns together, and keeps the most.
    """
    found, live = x_adv.clone(), torch.arange(len(rows), device=x_adv.device)
    while len(live):
        fewer = _taken_back(rows, found[live])
        keep = (fewer != found[live]).any(1)
        if bool(keep.any()):
            keep[keep.clone()] = rows.take(keep).look(fewer[keep])
        live, rows = live[keep], rows.take(keep)
        found[live] = fewer[keep]
    return found


def _taken_back(rows: Rows, x_adv: Tensor) -> Tensor:
    """Return notes with the most changes taken back that keep the margin above 0; the notes themselves where none."""
    changed = x_adv != rows.x
    most = int(changed.sum(1).max())
    places = changed.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    own = rows.x.gather(1, places)
    alone = margins(rows, changed_at(x_adv, places, own)).masked_fill(~changed.gather(1, places), NEVER)
    rank = torch.full_like(x_adv, most).scatter(1, places, _rank(alone).to(x_adv))
    sizes = [2**i for i in range(most.bit_length()) if 2**i < most]
    if not sizes:
        return x_adv
    notes = torch.stack([torch.where(rank < size, rows.x, x_adv) for size in sizes], 1)
    wins = (margins(rows, notes) > 0) & (notes != rows.x.unsqueeze(1)).any(2)
    largest = torch.where(wins, torch.arange(len(sizes), device=x_adv.device), -1).max(1).values
    chosen = notes[torch.arange(len(rows), device=x_adv.device), largest.clamp_min(0)]
    return torch.where((largest >= 0).unsqueeze(1), chosen, x_adv)
