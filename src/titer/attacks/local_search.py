"""Local search: every value is tried alone at what it may become, and those that help most go there together."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Count, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.rows import Rows, blocks
from titer.threats.room import choices, may_change

_VALUES = 2**22
"""Values of candidates held at a time."""


@attack(
    "local-search",
    paper="Narodytska, Kasiviswanathan 2017, arXiv:1612.06299, algorithm 1 (LocSearchAdv)",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    needs=Needs(access="scores", norms=("l0",), outputs=("classes",)),
)
def local_search(*, rounds: Count = 1) -> Attack:
    """Greedy local search over single values: no gradient, and so none that a flat place hides.

    Each round asks for the scores of the input with each value alone at either end of its range, and at every whole
    number between where the domain has few of them; it moves those that help most, towards the goal or towards one
    rival class after the other, and the best of these inputs goes on. It is exact where each value adds to the scores
    by itself and does most at one of these. The paper moves values by a factor and wins at a rank; here values and
    goal are the threat's.

    Args:
        rounds: in how many parts the budget is spent; each asks about every value anew.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        values = choices(threat, x)
        if bool(values.isinf().any()):
            raise Incompatible("local-search goes to the ends of each value's range, and a value has no end here")
        free, count = may_change(threat, x).flatten(), min(int(threat.budget.eps), values.shape[1])
        found = x.clone()
        for block in blocks(model, x, y, threat, rng):
            for i in range(len(block)):
                row = block.take(torch.tensor([i], device=x.device))
                found[row.at] = _searched(row, values, free, _shares(count, rounds))
        return found

    return run


def _shares(count: int, rounds: int) -> list[int]:
    """Return how many values each round moves, all of them `count`; no round moves none."""
    parts = [count * (i + 1) // rounds - count * i // rounds for i in range(rounds)]
    return [part for part in parts if part]


def _searched(row: Rows, values: Tensor, free: Tensor, shares: list[int]) -> Tensor:
    """Return the find for one row, [1, ...]; `values` [V, D] are what each value may become."""
    found = row.x
    for share in shares:
        still = free & (found == row.x).flatten()
        found = _moved(row, found, values[:, still], still.nonzero().flatten(), share)
        if bool(row.look(found)):
            break
    return found


def _moved(row: Rows, at: Tensor, values: Tensor, places: Tensor, share: int) -> Tensor:
    """Return the best input with at most `share` more values of `places` int64[F] at one of their `values` [V, F]."""
    if not len(places):
        return at
    stays = at.flatten()[places]
    # What stays comes last: of two that are worth the same, the move is taken.
    values = torch.cat([torch.where(values.isnan(), stays, values), stays.unsqueeze(0)])
    gain, choice = _alone(row, at, values, places).max(0)  # [F, M]: M leads, each with its own best values
    best = gain.topk(min(share, len(places)), dim=0).indices.t()
    inputs = at.flatten(1).repeat(len(best), 1)
    inputs.scatter_(1, places[best], values[choice.t().gather(1, best), best])
    tried = row.threat.project(inputs.view(-1, *at.shape[1:]), row.x.expand(len(best), *at.shape[1:]))
    margins = _leads(row, row.many_logits(tried.unsqueeze(0))[0])[:, 0]
    return tried[margins.argmax()].unsqueeze(0)


def _leads(row: Rows, logits: Tensor) -> Tensor:
    """Return [C, M] of logits [C, K]: the goal's margin, then how far each class but the true one is ahead of it."""
    y = row.y.expand(len(logits))
    ahead = logits - logits.gather(1, y.unsqueeze(1))
    rivals = torch.arange(logits.shape[1], device=logits.device) != row.y
    return torch.cat([row.threat.goal.margin(logits, y).unsqueeze(1), ahead[:, rivals]], 1)


def _alone(row: Rows, at: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """Return the leads [V, F, M] of the input `at` [1, ...] with one of `places` int64[F] alone at each of `values`."""
    flat, moves = at.flatten(), (values != values[-1]).nonzero()
    out = [row.many_logits(at.unsqueeze(0))[0]]
    for part in moves.split(max(1, _VALUES // len(flat))):
        where, to = places[part[:, 1]], values[part[:, 0], part[:, 1]]
        moved = flat.repeat(len(part), 1).scatter_(1, where.unsqueeze(1), to.unsqueeze(1))
        out.append(row.many_logits(moved.view(1, len(part), *at.shape[1:]))[0])
    leads = _leads(row, torch.cat(out))
    answers = leads[0].expand(*values.shape, -1).clone()
    answers[moves[:, 0], moves[:, 1]] = leads[1:]
    return answers
