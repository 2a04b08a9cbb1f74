"""What attacks on a training set share: which rows are changed, classes that must exist, and the domain's rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.protocols import TrainingData
from titer.core.record import Samples
from titer.core.threat import Logits, Region
from titer.threats.balls import ball

_ROUNDS = 20
_PASSED_ROWS = 512


def check_classes(poison: str, train: TrainingData, **labels: int | None) -> None:
    """Check that rows have classes, and that the named ones are among them.

    Raises:
        Incompatible: a row's label is no class.
        SpecError: a class that does not exist, or two settings that name the same one.
    """
    if train.output != "classes":
        raise Incompatible(f"{poison} changes classes, and the output of these data is {train.output!r}")
    for name, label in labels.items():
        if label is not None and not 0 <= label < train.classes:
            raise SpecError(f"{poison}.{name} = {label} is not allowed: classes are 0 to {train.classes - 1}")
    given = [label for label in labels.values() if label is not None]
    if len(set(given)) < len(given):
        raise SpecError(f"{poison}.{' and '.join(labels)} = {given[0]} are not allowed: they must be two classes")


def row_count(train: TrainingData, share: float) -> int:
    """Return how many rows a share of the training part is; raise Incompatible where it is none."""
    count = round(share * len(train.train))
    if count < 1:
        raise Incompatible(f"a share of {share:g} of {len(train.train)} training rows is no row")
    return count


def chosen(eligible: Tensor, count: int, what: str, rng: Generator) -> Tensor:
    """Return the places int64[count] of rows drawn from `eligible` bool[N], where a larger count adds to a smaller one.

    Raises:
        Incompatible: fewer rows than `count` are eligible.
    """
    places = eligible.cpu().nonzero().flatten()
    if len(places) < count:
        raise Incompatible(f"{count} rows are to be changed, and {len(places)} {what}")
    return places[torch.randperm(len(places), generator=rng)][:count]


def replaced(part: Samples, rows: Tensor, *, x: Tensor | None = None, y: Tensor | None = None) -> Samples:
    """Return the samples with values, labels or both of the rows int64[n] replaced."""
    at = rows.to(part.x.device)
    return replace(
        part,
        x=part.x if x is None else part.x.index_copy(0, at, x.to(part.x)),
        y=part.y if y is None else part.y.index_copy(0, at, y.to(part.y)),
    )


def differing(before: Samples, after: Samples) -> Tensor:
    """Return bool[N]: rows whose values or label are not what they were."""
    return ((before.x != after.x).flatten(1).any(1) | (before.y != after.y)).cpu()


def inside(domain: tuple[Region, ...], changed: Tensor, x: Tensor) -> Tensor:
    """Return bool[N]: the changed rows keep every rule of the domain, and are finite."""
    kept = changed.flatten(1).isfinite().all(1)
    for rule in domain:
        kept = kept & rule.contains(changed, x)
    return kept


def brought_inside(domain: tuple[Region, ...], changed: Tensor, x: Tensor) -> Tensor:
    """Return the changed rows [N, ...] projected onto each rule in turn until all hold, or nothing more is gained."""
    for _ in range(_ROUNDS):
        for rule in domain:
            changed = rule.project(changed, x)
        if bool(inside(domain, changed, x).all()):
            break
    return changed


def limits(train: TrainingData) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest raw value: of the value range, or of each feature in the training part."""
    if train.value_range is not None:
        low, high = (train.train.x.new_tensor(end) for end in train.value_range)
        return low, high
    x = train.train.x
    if x.dim() == 2:
        return x.amin(0), x.amax(0)
    return x.amin(), x.amax()


def threads(model: Model) -> tuple[nn.Module, Logits]:
    """Return a copy of the network whose weights take gradients, in evaluation mode, and its logits of raw inputs.

    Raises:
        Incompatible: the attacker knows no network.
    """
    if model.net is None or model.rebuild is None:
        raise Incompatible(f"{model.name} shows the attacker no network: this attack is made with one")
    net = copy.deepcopy(model.net).eval().requires_grad_()
    return net, model.rebuild(net)


def perturbed(
    train: TrainingData,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    eps: float,
    unit: str,
    steps: int,
    rate: float = 0.1,
) -> Tensor:
    """Return rows [N, ...] inside the domain within eps (linf) of x, where the number `loss` is low.

    Signed Adam as in Geiping et al. 2021 (arXiv:2009.02276, appendix), each step `rate` of the budget and falling.

    Raises:
        Incompatible: the data set has no such unit.
    """
    if unit not in train.units:
        raise Incompatible(f"unit {unit!r} is not one of this data set's: {', '.join(train.units)}")
    budget = ball("linf", eps, train.units[unit], unit)
    size = eps * budget.scaled(x)
    moved = x.clone()
    mean, square = torch.zeros_like(x), torch.zeros_like(x)
    best, lowest = x, float("inf")
    for step in range(1, steps + 1):
        given = moved.detach().requires_grad_()
        value = loss(given)
        if float(value.detach()) < lowest:
            best, lowest = given.detach(), float(value.detach())
        slope = torch.autograd.grad(value, given)[0]
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
        way = (mean / (1 - 0.9**step)) / ((square / (1 - 0.99**step)).sqrt() + 1e-12)
        moved = given.detach() - rate * (1 - 0.9 * step / steps) * size * way.clamp(-1, 1)
        moved = brought_inside(train.domain, budget.project(moved, x), x)
    best = moved if float(loss(moved).detach()) < lowest else best
    # Where a rule and the budget cannot be met together the row stays as it was: nothing implausible is planted.
    fits = budget.contains(best, x) & inside(train.domain, best, x)
    return torch.where(fits.view(-1, *[1] * (x.dim() - 1)), best, x)
