"""Local search: every value is tried alone at the ends of its range, and those that help most go there together."""

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
from titer.threats.room import limits, may_change

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

    Each round asks for the scores of the input with each value alone at either end of its range, and moves those that
    help most, towards the goal or towards one rival class after the other; the best of these inputs goes on. It is
    exact where each value adds to the scores by itself. The paper moves values by a factor and wins at a rank; here
    ends and goal are the threat's.

    Args:
        rounds: in how many parts the budget is spent; each asks about every value anew.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        low, high = (bound.flatten() for bound in limits(threat, x))
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise Incompatible("local-search goes to the ends of each value's range, and a value has no end here")
        free, count = may_change(threat, x).flatten(), min(int(threat.budget.eps), low.numel())
        found = x.clone()
        for block in blocks(model, x, y, threat, rng):
            for i in range(len(block)):
                row = block.take(torch.tensor([i], device=x.device))
                found[row.at] = _searched(row, low, high, free, _shares(count, rounds))
        return found

    return run


def _shares(count: int, rounds: int) -> list[int]:
    """Return how many values each round moves, all of them `count`; no round moves none."""
    parts = [count * (i + 1) // rounds - count * i // rounds for i in range(rounds)]
    return [part for part in parts if part]


def _searched(row: Rows, low: Tensor, high: Tensor, free: Tensor, shares: list[int]) -> Tensor:
    """Return the find for one row, [1, ...]."""
    found = row.x
    for share in shares:
        still = free & (found == row.x).flatten()
        found = _moved(row, found, torch.stack([low, high])[:, still], still.nonzero().flatten(), share)
        if bool(row.look(found)):
            break
    return found


def _moved(row: Rows, at: Tensor, ends: Tensor, places: Tensor, share: int) -> Tensor:
    """Return the best input with `share` more values of `places` int64[F] at one of their `ends` [2, F]."""
    if not len(places):
        return at
    answers = _leads(row, _alone(row, at.flatten(), ends, places)).view(2, len(places), -1)
    gain, end = answers.max(0)  # [F, M]: M leads, each with its own best values
    best = gain.topk(min(share, len(places)), dim=0).indices.t()
    inputs = at.flatten(1).repeat(len(best), 1)
    inputs.scatter_(1, places[best], torch.where(end.t().gather(1, best) == 0, ends[0][best], ends[1][best]))
    tried = row.threat.project(inputs.view(-1, *at.shape[1:]), row.x.expand(len(best), *at.shape[1:]))
    margins = _leads(row, row.many_logits(tried.unsqueeze(0))[0])[:, 0]
    return tried[margins.argmax()].unsqueeze(0)


def _leads(row: Rows, logits: Tensor) -> Tensor:
    """Return [C, M] of logits [C, K]: the goal's margin, then how far each class but the true one is ahead of it."""
    y = row.y.expand(len(logits))
    ahead = logits - logits.gather(1, y.unsqueeze(1))
    rivals = torch.arange(logits.shape[1], device=logits.device) != row.y
    return torch.cat([row.threat.goal.margin(logits, y).unsqueeze(1), ahead[:, rivals]], 1)


def _alone(row: Rows, at: Tensor, ends: Tensor, places: Tensor) -> Tensor:
    """Return the logits [2 F, K] of the input `at` [D], one value of `places` at its lower, then its upper end."""
    values, where = ends.flatten(), places.repeat(2)
    out = []
    for part in torch.arange(len(where), device=at.device).split(max(1, _VALUES // len(at))):
        moved = at.repeat(len(part), 1).scatter_(1, where[part].unsqueeze(1), values[part].unsqueeze(1))
        out.append(row.many_logits(moved.view(1, len(part), *row.x.shape[1:]))[0])
    return torch.cat(out)
