"""HopSkipJump: estimate the boundary's normal from decisions alone, step along it, and come back towards the row."""

from __future__ import annotations

import math
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
from titer.threats.balls import per_row, size, to_units

_RADIUS, _FARTHEST = 0.02, 0.5
_OFFSET = 0.4
_ONE_SIDED = 0.8
_MEMORY = {"l2": 0.0, "linf": 0.9}
_HALVINGS = 12
_FEWEST = 10
_TINY = 1e-30


@attack(
    "hopskipjump",
    paper="Chen, Jordan, Wainwright 2020, arXiv:1904.02144, algorithm 2, eq. 9 to 12 and 16",
    threat_ids=("NISTAML.025", "AML.T0043.001"),
    minimal=True,
    needs=Needs(access="decision", norms=("linf", "l2")),
)
def hopskipjump(*, queries: Count = 2400, first_evaluations: Count = 50) -> Attack:
    """HopSkipJump, under L2 and Linf.

    Args:
        queries: questions for each row at most, those for its starting point included.
        first_evaluations: questions for the first estimate of a normal; the t-th takes the root of t times as many.
    """

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        found = x.clone()
        for block in blocks(model, x, y, threat, rng, free=True):
            for ledger in ledgers(block, queries):
                _search(ledger, first_evaluations)
                ledger.settle()
                found[ledger.rows.at] = ledger.found
        return found

    return run


def _search(ledger: Ledger, first: int) -> None:
    """Walk until no row has questions left for another estimate; the ledger keeps the finds.

    Departures: a radius that widens where all answers are alike (rounded values), and under Linf, where the change
    itself keeps no trace of the normals that it came from, a share of the last normal counts on.
    """
    tolerance = _OFFSET * _RADIUS / math.sqrt(max(int(ledger.open.sum()), 1))
    back = math.ceil(-math.log2(tolerance)) + 1
    memory = _MEMORY[ledger.rows.threat.budget.norm]
    at, x_adv = ledger.searched, ledger.rows.x.clone()
    normal, radius = torch.zeros_like(x_adv), torch.full_like(ledger.nearest, _RADIUS)
    x_adv[at] = bisect(ledger, at, ledger.found[at], tolerance)
    for step in count(1):
        most = int(first * math.sqrt(step))
        asked = (ledger.left[at] - back - 1).clamp_max(most)
        at, asked = at[asked >= _FEWEST], asked[asked >= _FEWEST]
        if not len(at):
            return
        fresh, mean = _normal(ledger, at, x_adv[at], radius[at], asked, most)
        normal[at] = memory * normal[at] + fresh
        radius[at] = (radius[at] * 2 ** (mean / _ONE_SIDED).trunc()).clamp_max(_FARTHEST)
        x_adv[at] = bisect(ledger, at, _ahead(ledger, at, x_adv[at], normal[at], step), tolerance)


def _normal(
    ledger: Ledger, at: Tensor, x_adv: Tensor, radius: Tensor, asked: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Return the estimated unit normal towards the goal [m, ...], in units (eq. 9 and 16), and the mean answer [m].

    Answers are 1 or -1, and their mean is taken off. Row m gets `asked` int64[m] of the `most` questions; drawing is
    done for all of them, so that a row's numbers do not depend on how many others get.
    """
    rows, numbers = ledger.of(at), x_adv[0].numel()
    reach = radius * size("l2", x_adv, rows.x, rows.threat.budget.scaled(x_adv))
    sums = torch.zeros(len(at), 2, numbers, dtype=x_adv.dtype, device=x_adv.device)
    total = torch.zeros_like(radius)
    chunk = draws_at_once(ledger, most)
    for begin in range(0, most, chunk):
        noise = draw(ledger, chunk)
        noise = noise if len(at) == len(noise) else noise[at]
        wanted = begin + torch.arange(chunk, device=at.device) < asked.unsqueeze(1)
        moved, answers = _answers(ledger, at, x_adv, noise, reach, wanted)
        sums += torch.bmm(torch.stack([answers, wanted.to(answers)], 1), moved)
        total += answers.sum(1)
    mean = total / asked
    one_sided = mean.abs() == 1  # no contrast: all that is known is where they went
    normal = sums[:, 0] - torch.where(one_sided, 0.0, mean).unsqueeze(1) * sums[:, 1]
    return normal.view_as(x_adv) / per_row(normal.norm(dim=1).clamp_min(_TINY), x_adv), mean


def _answers(
    ledger: Ledger, at: Tensor, x_adv: Tensor, noise: Tensor, reach: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Ask at x_adv [m, ...] moved by `reach` [m] along each of `noise` [m, c, ...], where `wanted` bool[m, c].

    Returns:
        what the domain let through of each move, [m, c, values], in units, and the answers: 1, -1, or 0 if not asked.
    """
    scale = ledger.rows.threat.budget.scaled(x_adv)
    length = torch.linalg.vector_norm(noise.flatten(2), dim=2).clamp_min(_TINY)
    step = (reach.unsqueeze(1) / length).view(*wanted.shape, *[1] * (x_adv.dim() - 1))
    around = torch.addcmul(x_adv.unsqueeze(1), noise, step * scale).flatten(0, 1)
    which: slice | Tensor = slice(None) if bool(wanted.all()) else wanted.flatten().nonzero().flatten()
    owner = torch.arange(len(at), device=at.device).repeat_interleave(wanted.shape[1])[which]
    inputs, hit = ledger.poll(at[owner], around[which])
    moved, answers = torch.zeros_like(noise).flatten(0, 1), torch.zeros_like(length).flatten()
    moved[which] = to_units(inputs - x_adv[owner], scale)
    answers[which] = torch.where(hit, 1.0, -1.0).to(answers)
    return moved.view(*wanted.shape, -1), answers.view(wanted.shape)


def _ahead(ledger: Ledger, at: Tensor, x_adv: Tensor, normal: Tensor, step: int) -> Tensor:
    """Return x_adv moved along the normal as far as the goal is still reached: halved until it is (eq. 12)."""
    rows = ledger.of(at)
    way = normal.sign() if rows.threat.budget.norm == "linf" else normal
    way = way * rows.threat.budget.scaled(x_adv)
    length = rows.distance(x_adv) / math.sqrt(step)
    ahead, still = x_adv.clone(), torch.arange(len(at), device=at.device)
    for _ in range(_HALVINGS):
        inputs, hit = ledger.ask(at[still], x_adv[still] + per_row(length[still], x_adv) * way[still])
        ahead[still[hit]] = inputs[hit]
        still, length = still[~hit], length / 2
        if not len(still):
            break
    return ahead
