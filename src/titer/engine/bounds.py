"""Bounds of what a network computes on a set of inputs: intervals forwards, linear functions backwards.

Intervals: Gowal et al. 2018, arXiv:1810.12715, section 3. Linear functions: CROWN, Zhang, Weng, Chen, Hsieh, Daniel
2018, arXiv:1811.00866, section 3.2 and table 1, with the adaptive lower slope of a ReLU; on graphs of layers as in Xu
et al. 2020, arXiv:2002.12920.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from titer.engine.bound_graph import Graph, Step, applied
from titer.engine.bound_layers import Input, Maximum, Rectified, Sum
from titer.engine.regions import Around, Interval

_NUMBERS = 2**24
"""How many numbers one block of slopes may have: 64 MiB."""


def intervals(graph: Graph, region: Around, known: Sequence[Interval] = ()) -> list[Interval]:
    """Return the interval of every step's values; those `known` of the first steps are taken as they are."""
    found = list(known)
    for step in graph.steps[len(found) :]:
        found.append(_interval(step, [found[i] for i in step.inputs] or [region.box]))
    return found


def _interval(step: Step, given: list[Interval]) -> Interval:
    layer, first = step.layer, given[0]
    if isinstance(layer, Input):
        return first
    if isinstance(layer, Rectified):
        return Interval(low=first.low.relu(), high=first.high.relu())
    if isinstance(layer, Maximum):
        return Interval(low=layer.forward(first.low), high=layer.forward(first.high))
    if isinstance(layer, Sum):
        return Interval(low=first.low + given[1].low, high=first.high + given[1].high)
    middle, radius = applied(layer, first.middle, step.shape), layer.magnitude(first.radius)
    return Interval(low=middle - radius, high=middle + radius)


def tightened(graph: Graph, region: Around, most: int | None = None) -> list[Interval]:
    """Return the intervals of every step, those before a ReLU or a maximum tightened by linear bounds.

    Only values that may be of either sign are tightened: for all others a ReLU is a line anyway.

    Args:
        graph: the network.
        region: the rows' inputs.
        most: tighten at most so many values a step and row, the widest first; None for all.
    """
    bent = {i for step in graph.steps if isinstance(step.layer, Rectified | Maximum) for i in step.inputs}
    found: list[Interval] = []
    for at, step in enumerate(graph.steps):
        found.append(_interval(step, [found[i] for i in step.inputs] or [region.box]))
        if at in bent and at:
            found[at] = _tighter(graph, region, found, at, most)
    return found


def _tighter(graph: Graph, region: Around, found: list[Interval], at: int, most: int | None) -> Interval:
    low, high = found[at].low.flatten(1), found[at].high.flatten(1)
    open_width = (high - low) * ((low < 0) & (high > 0))
    count = int((open_width > 0).sum(1).max())
    count = count if most is None else min(count, most)
    if not count:
        return found[at]
    places = open_width.topk(count, dim=1).indices
    lows, highs = [], []
    for rows, part in _blocks(len(region), count, graph.widest):
        chosen, here, near = places[rows, part], [one.take(rows) for one in found], region.take(rows)
        unit = torch.zeros(*chosen.shape, low.shape[1], dtype=low.dtype, device=low.device)
        slope = unit.scatter_(2, chosen.unsqueeze(2), 1.0).view(*chosen.shape, *graph.steps[at].shape)
        lows.append(lowest(graph, slope, at, here, near))
        highs.append(-lowest(graph, -slope, at, here, near))
    shape = found[at].low.shape
    better = Interval(
        low=low.scatter(1, places, _joined(lows, places)).view(shape),
        high=high.scatter(1, places, _joined(highs, places)).view(shape),
    )
    return better.within(found[at])


def _blocks(rows: int, count: int, widest: int) -> list[tuple[slice, slice]]:
    """Return blocks of rows and of values that fit into memory, row by row where not all values do."""
    values = max(1, min(count, _NUMBERS // widest))
    many = max(1, _NUMBERS // (widest * values)) if values == count else 1
    return [
        (slice(row, row + many), slice(start, start + values))
        for row in range(0, rows, many)
        for start in range(0, count, values)
    ]


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    """Put the blocks together again: they came row by row, and within it value by value."""
    return torch.cat([part.flatten() for part in parts]).view_as(like)


def lowest(
    graph: Graph, slope: Tensor, at: int, bounds: Sequence[Interval], region: Around, *, bend: bool = True
) -> Tensor:
    """Return the least value float[N, m] of slopes [N, m, *shape] times what step `at` puts out.

    With `bend` the bound is passed back through ReLUs to the input; without, it stops at their intervals, which is
    interval arithmetic where what follows the last of them is one linear map.
    """
    slopes: dict[int, Tensor] = {at: slope}
    least = torch.zeros_like(slope.flatten(2)[..., 0])
    for index in range(at, -1, -1):
        if index not in slopes:
            continue
        here, step = slopes.pop(index), graph.steps[index]
        layer = step.layer
        if isinstance(layer, Input):
            least = least + region.lowest(here)
        elif isinstance(layer, Sum):
            for source in step.inputs:
                slopes[source] = slopes[source] + here if source in slopes else here
        elif isinstance(layer, Rectified | Maximum) and not bend:
            least = least + _held(here, bounds[index])
        else:
            (source, before) = step.inputs[0], graph.steps[step.inputs[0]]
            through, offset = _back(step, here, before, bounds[source])
            least = least if offset is None else least + offset
            slopes[source] = slopes[source] + through if source in slopes else through
    return least


def _back(step: Step, slope: Tensor, before: Step, inner: Interval) -> tuple[Tensor, Tensor | None]:
    """Return slopes on what a step is given, and what is to be added to them, float[N, m]."""
    layer = step.layer
    if isinstance(layer, Rectified):
        return _through_relu(slope, inner)
    if isinstance(layer, Maximum):
        return _through_maximum(layer, slope, inner)
    assert not isinstance(layer, Input | Sum)
    back = layer.back(slope.flatten(0, 1), before.shape).view(*slope.shape[:2], *before.shape)
    offset = layer.offset(step.shape)
    added = None if offset is None else (slope.flatten(2) @ offset.to(slope).expand(step.shape).flatten())
    return back, added


def _through_relu(slope: Tensor, before: Interval) -> tuple[Tensor, Tensor]:
    """Return slope and offset below `slope` times relu(z), for z in its interval (table 1)."""
    low, high = before.low.unsqueeze(1), before.high.unsqueeze(1)
    steep = (high.clamp_min(0) / (high.clamp_min(0) - low.clamp_max(0)).clamp_min(1e-12)).clamp_max(1.0)
    flat = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, (high > -low).to(slope.dtype)))
    rising, falling = slope.clamp_min(0), slope.clamp_max(0)
    offset = (falling.flatten(2) @ (-low.clamp_max(0) * steep).flatten(1).unsqueeze(-1)).squeeze(-1)
    return rising * flat + falling * steep, offset


def _through_maximum(layer: Maximum, slope: Tensor, before: Interval) -> tuple[Tensor, Tensor]:
    """Return slope and offset below `slope` times a maximum.

    The maximum is at least the value with the highest lower bound. At most it is the highest upper bound; where that
    value's lower bound is above every other's upper one, it is that value itself.
    """
    places, alone = layer.winners(before.low, before.high)
    rising, falling = slope.clamp_min(0), slope.clamp_max(0)
    passed = rising + torch.where(alone.unsqueeze(1), falling, 0.0)
    index = places.flatten(2).unsqueeze(1).expand(-1, slope.shape[1], -1, -1)
    back = torch.zeros(*slope.shape[:2], *before.low.flatten(2).shape[1:], dtype=slope.dtype, device=slope.device)
    back = back.scatter_add(3, index, passed.flatten(3)).view(*slope.shape[:2], *before.low.shape[1:])
    highest = layer.forward(before.high).flatten(1).unsqueeze(-1)
    held = torch.where(alone.unsqueeze(1), 0.0, falling).flatten(2) @ highest
    return back, held.squeeze(-1)


def _held(slope: Tensor, values: Interval) -> Tensor:
    """Return the least value of slopes times anything in the intervals."""
    middle, radius = (part.flatten(1).unsqueeze(-1) for part in (values.middle, values.radius))
    return (slope.flatten(2) @ middle - slope.flatten(2).abs() @ radius).squeeze(-1)
