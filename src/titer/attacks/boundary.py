"""Boundary attack: walk at random along the decision boundary, always a little nearer to the row."""

from __future__ import annotations

from itertools import count

import torch
from torch import Generator, Tensor

from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.decisions import Ledger, bisect, draw, draws_at_once, ledgers
from titer.engine.rows import blocks
from titer.threats.balls import per_row, to_units

_ACROSS, _NEARER = 0.1, 0.01
_ACROSS_HITS, _NEARER_HITS = 0.5, 0.25
_CHECKED, _RATE, _DRAWS = 10, 0.2, 16
_SHORTEST, _LONGEST = 1e-6, 0.5
_ALMOST = 1e-3
_TINY = 1e-30


@attack(
    "boundary",
    paper="Brendel, Rauber, Bethge 2018, arXiv:1712.04248, algorithm 1 and section 2.3",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    minimal=True,
    needs=Needs(access="decision", norms=("l2",)),
)
def boundary(*, queries: Count = 2000) -> Attack:
    """Boundary attack, under L2.

    Args:
        queries: questions for each row at most, those for its starting point included.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        found = x.clone()
        for block in blocks(model, x, y, threat, rng, free=True):
            for ledger in ledgers(block, queries):
                _walk(ledger)
                ledger.settle()
                found[ledger.rows.at] = ledger.found
        return found

    return run


def _walk(ledger: Ledger) -> None:
    """Walk until no row has questions left; the ledger keeps the finds, and each walk stands on its nearest.

    `across` and `nearer` are lengths as shares of the distance. Departures: the start is bisected onto the boundary,
    and both lengths are steered after every answer, not after a window of them.
    """
    at = ledger.searched
    bisect(ledger, at, ledger.found[at], _ALMOST)
    drawn = draws_at_once(ledger, _DRAWS)
    across, nearer = torch.full_like(ledger.nearest, _ACROSS), torch.full_like(ledger.nearest, _NEARER)
    for step in count(1):
        at = at[ledger.left[at] > 0]
        if not len(at):
            return
        if step % drawn == 1 % drawn:
            noise = draw(ledger, drawn)
        aside, closer = noise[at, step % drawn], bool(step % _CHECKED)
        hit = _asked(ledger, at, aside, across[at], nearer[at] * closer)
        if closer:
            nearer[at] = _steered(nearer[at], hit, _NEARER_HITS)
        else:
            across[at] = _steered(across[at], hit, _ACROSS_HITS)


def _asked(ledger: Ledger, at: Tensor, noise: Tensor, across: Tensor, nearer: Tensor) -> Tensor:
    """Ask about a step along `noise`, `across` the sphere around the clean row, and `nearer` to it; bool[m]: a hit."""
    rows = ledger.of(at)
    scale = rows.threat.budget.scaled(rows.x)
    change, distance = ledger.found[at] - rows.x, ledger.nearest[at]
    flat = noise.flatten(1)
    inwards = torch.linalg.vecdot(flat, to_units(change, scale).flatten(1)) / distance
    # What is left of the noise without its part along the change; by Pythagoras, so that no other tensor is made.
    tangent = (torch.linalg.vecdot(flat, flat) - inwards.square()).clamp_min(_TINY).sqrt()
    stretch = distance * across / tangent
    kept = (1 - nearer) / (1 + across.square()).sqrt()
    x_adv = torch.addcmul(rows.x, change, per_row(kept * (1 - stretch * inwards / distance), change))
    _, hit = ledger.ask(at, x_adv.addcmul_(noise, per_row(kept * stretch, change) * scale))
    return hit


def _steered(length: Tensor, hit: Tensor, share: float) -> Tensor:
    """Return longer steps after a hit and shorter ones after a miss, so that about `share` of them hit."""
    return (length * torch.exp(_RATE * (hit.to(length) - share))).clamp(_SHORTEST, _LONGEST)
