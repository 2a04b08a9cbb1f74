"""What an explanation study looks at: studied rows after an attack, those it flipped, and the same change unaimed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.assess.attempts import attempts
from titer.assess.cells import Cell
from titer.assess.judge import Prediction, Verdict, predict, predict_proposals, reached, verdict
from titer.assess.plan import AttackPlan
from titer.assess.study_parts import studied_rows
from titer.assess.trial import Defended, Trial
from titer.core.model import Model
from titer.core.outputs import Output
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Goal, Threat
from titer.threats.balls import per_row, size, to_units
from titer.threats.output_goals import OneFinding
from titer.threats.rules import followable


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """All studied rows after one attack.

    `attacked` bool[N]: rows that the attack was given and whose find is inside the threat; `flipped` bool[N]: those of
    them that it won. `x_adv` [N, ...] is the clean row elsewhere.
    """

    threat: Threat
    rows: Samples
    x_adv: Tensor
    clean: Prediction
    result: Verdict
    attacked: Tensor
    flipped: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Rows that the attack flipped, in a random order, with what each is explained for.

    `index` int64[n] are their places among the studied rows. `first` and `new` int64[n] are the classes of the decision
    before and under attack. `noisy` [n, ...] has a change of the same size without aim, `noise_length` float[n] its
    Euclidean length over that of the attack's, and `noise_won` bool[n] says where it reaches the goal all the same.
    """

    index: Tensor
    clean: Tensor
    attacked: Tensor
    noisy: Tensor
    first: Tensor
    new: Tensor
    noise_won: Tensor
    noise_length: Tensor


def cell_of(trial: Trial, source: Defended, attack: AttackPlan, threat: Threat) -> Cell:
    """Return the cell of an attack on one defended model under one threat."""
    return Cell(trial=trial, attack=attack, threats=(threat,), source=source, targets=(source,))


def attempt(trial: Trial, source: Defended, attack: AttackPlan, threat: Threat, count: int) -> Attempt:
    """Run the attack on `count` studied rows and judge it, as an assessment does.

    Raises:
        Incompatible: the attack cannot run on this model or threat.
    """
    assert source.model is not None
    rows, cell = studied_rows(trial, count), cell_of(trial, source, attack, threat)
    names = (source.model_label, source.label)
    clean = predict(source.model, rows.x, rng=generator(trial.seed, "judge", *names, "explanation"))
    proposal = attempts(trial, cell, rows, clean)[-1]
    rng = generator(trial.seed, "judge", *names, "explanation", cell.id)
    found = predict_proposals(source.model, clean, proposal, rng=rng)
    result = verdict(
        source.model, rows.x, rows.y, clean, proposal, threat, minimal=attack.minimal, found=found, rng=rng
    )
    attacked = proposal.attacked
    if attack.minimal:
        attacked = attacked & threat.budget.contains(proposal.x_adv, rows.x)
    return Attempt(
        threat=threat,
        rows=rows,
        x_adv=torch.where(per_row(attacked, rows.x), proposal.x_adv, rows.x),
        clean=clean,
        result=result,
        attacked=attacked,
        flipped=result.won & attacked,
    )


def flips_of(model: Model, found: Attempt, *, seed: int) -> Flips:
    """Return the flipped rows, each beside its control: the attack's own change, shuffled (see `unaimed`)."""
    index = found.flipped.nonzero().flatten()
    index = index[torch.randperm(len(index), generator=generator(seed, "order")).to(index.device)]
    x, x_adv, y = found.rows.x[index], found.x_adv[index], found.rows.y[index]
    noisy = unaimed(x_adv, x, found.threat, rng=generator(seed, "noise"))
    before, after = (one.reported[index] for one in (found.clean, found.result.prediction))
    first, new = _asked(model.output, before, after, found.clean.width, found.threat.goal)
    won = torch.zeros(len(index), dtype=torch.bool, device=x.device)
    if len(index):
        won = reached(found.threat, predict(model, noisy, rng=generator(seed, "noise judged")), y)
    scale = found.threat.budget.scaled(x)
    return Flips(
        index=index,
        clean=x,
        attacked=x_adv,
        noisy=noisy,
        first=first,
        new=new,
        noise_won=won,
        noise_length=size("l2", noisy, x, scale) / size("l2", x_adv, x, scale).clamp_min(1e-12),
    )


def unaimed(x_adv: Tensor, x: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
    """Return rows whose change has the sizes of the attack's own, [N, ...], but is aimed at nothing.

    Its values are dealt out anew over the places that may change, each with a random sign, or with the other one where
    that alone stays inside the domain's box: every norm stays as it is. What breaks another rule is projected, and the
    clean row stands in where even that fails.
    """
    scale = threat.budget.scaled(x)
    change = to_units(x_adv - x, scale).flatten(1)
    ups, downs = (followable(threat.domain, x, direction) for direction in (torch.ones_like(x), -torch.ones_like(x)))
    closed = ~(((ups != 0) | (downs != 0)) & (scale > 0)).flatten(1) & (change == 0)
    keys = torch.rand(change.shape, generator=rng).to(x.device).masked_fill(closed, 2.0)
    signs = torch.randint(0, 2, change.shape, generator=rng).to(x) * 2 - 1
    values = change.gather(1, closed.to(torch.uint8).argsort(dim=1, stable=True))
    dealt = torch.zeros_like(change).scatter(1, keys.argsort(dim=1), values).mul(signs).view_as(x) * scale
    noisy = x + dealt
    bounds = threat.bounds(x)
    if bounds is not None:
        noisy = torch.where((noisy < bounds[0]) | (noisy > bounds[1]), x - dealt, noisy)
    noisy = threat.project(noisy, x)
    return torch.where(per_row(threat.contains(noisy, x), x), noisy, x)


def _asked(output: Output, before: Tensor, after: Tensor, width: int, goal: Goal) -> tuple[Tensor, Tensor]:
    """Return int64[n] twice: the class that an explanation is asked for before, and under attack.

    Of findings it is the one that the goal is about, or the first whose report changed; of a mask the foreground class
    with the largest area; a value has one score.
    """
    if output == "classes":
        return before, after
    if output == "value":
        nothing = torch.zeros(len(before), dtype=torch.int64, device=before.device)
        return nothing, nothing
    if output == "labels":
        one = (before != after).int().argmax(1)
        one = torch.full_like(one, goal.finding) if isinstance(goal, OneFinding) else one
        return one, one
    return _largest(before, width), _largest(after, width)


def _largest(mask: Tensor, width: int) -> Tensor:
    areas = [(mask == one).flatten(1).sum(1) for one in range(1, width)]
    return torch.stack(areas, dim=1).argmax(1) + 1
