"""Windows of neighbouring values, at random places: squares of images, segments of signals, subsets of tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from titer.core.threat import Threat
from titer.engine.queries import opened, shuffled

_TILES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One size of window: flat `starts` int64[m] where its first cell may lie, and from there `cells` int64[k].

    `pattern` float32[axes, k] is its shape in L2, one for each direction of its two halves.
    """

    starts: Tensor
    cells: Tensor
    pattern: Tensor

    def at(self, numbers: Tensor) -> Tensor:
        """Return the flat places of one window a row, int64[n, k], picked by large random numbers int64[n]."""
        return self.starts[numbers % len(self.starts)].unsqueeze(1) + self.cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The values of a row as `channels` over a flat `space`, and what of it may change.

    The first of several dimensions is the channel, as in images [C, H, W], signals [C, L] and volumes [C, D, H, W]. The
    values of a table [D] have no neighbours: they are laid on a line in a random `order` int64[D]. `open` says of each
    value of a row whether it may change, `free` of each place whether one of its channels may.
    """

    channels: int
    sizes: tuple[int, ...]
    open: Tensor
    free: Tensor
    order: Tensor | None

    def place(self, places: Tensor) -> Tensor:
        """Return flat places as index [n, C, k] into rows seen as [n, C, space]."""
        if self.order is not None:
            places = self.order[places]
        return places.unsqueeze(1).expand(-1, self.channels, -1)

    def view(self, x: Tensor) -> Tensor:
        """Return rows [n, ...] as [n, C, space]."""
        return x.reshape(len(x), self.channels, -1)

    def window(self, share: float, least: int = 1) -> Window:
        """Return the window that covers `share` of what may change, as nearly as whole cells can.

        Its side is `least` or more, and odd where `least` is above 1; a region of few cells has single ones as well.
        """
        firsts, extents = self._box()
        least = least if min(extents) >= _TILES * least else 1
        side = max(round((share * int(self.free.sum())) ** (1 / len(self.sizes))), least)
        side += int(least > 1 and side % 2 == 0)
        sides = tuple(min(side, extent) for extent in extents)
        # A start is good where its window lies inside the box and holds at least one value that may change.
        good = self.free
        for axis, length in enumerate(sides):
            good = good.narrow(axis, firsts[axis], extents[axis]).unfold(axis, length, 1).any(-1)
        grid = good.nonzero() + torch.tensor(firsts, device=good.device)
        return Window(starts=self._flat(grid), cells=self._cells(sides), pattern=_patterns(sides).to(good.device))

    def tiles(self) -> tuple[Window, Tensor]:
        """Return five tiles a side (as many as fit) and all their places, int64[t, k] (figure 3 of the paper)."""
        firsts, extents = self._box()
        side = max(min(extents) // _TILES, 1)
        lines = [
            torch.arange(extent // side) * side + first + extent % side // 2
            for first, extent in zip(firsts, extents, strict=True)
        ]
        starts = self._flat(torch.cartesian_prod(*lines).view(-1, len(lines))).to(self.free.device)
        sides = (side,) * len(self.sizes)
        window = Window(starts=starts, cells=self._cells(sides), pattern=_patterns(sides).to(self.free.device))
        return window, starts.unsqueeze(1) + window.cells

    def _box(self) -> tuple[list[int], list[int]]:
        """Return first index and extent, along each axis, of the smallest box around what may change."""
        places = self.free.nonzero()
        first, last = places.amin(0), places.amax(0)
        return first.tolist(), (last - first + 1).tolist()

    def _cells(self, sides: tuple[int, ...]) -> Tensor:
        grid = torch.cartesian_prod(*(torch.arange(side) for side in sides)).view(-1, len(sides))
        return self._flat(grid).to(self.free.device)

    def _flat(self, grid: Tensor) -> Tensor:
        strides = [math.prod(self.sizes[axis + 1 :]) for axis in range(len(self.sizes))]
        return (grid * torch.tensor(strides, device=grid.device)).sum(1)


def field(threat: Threat, x: Tensor, rng: Generator) -> Field:
    """Return the field of rows `x` [N, ...]; a table's order is drawn from `rng`."""
    may = opened(threat, x)
    if may.dim() > 1:
        return Field(channels=may.shape[0], sizes=tuple(may.shape[1:]), open=may, free=may.any(0), order=None)
    order = shuffled(threat, x, rng)
    free = torch.ones_like(order, dtype=torch.bool)
    return Field(channels=1, sizes=(len(order),), open=may, free=free, order=order)


def _patterns(sides: tuple[int, ...]) -> Tensor:
    """Return the windows of eq. 2, float32[axes, k]: two pyramids of opposite sign side by side, length 1."""
    both = []
    for axis, side in enumerate(sides):
        halves = [(*sides[:axis], part, *sides[axis + 1 :]) for part in (side // 2, side - side // 2)]
        window = torch.cat([_pyramid(halves[0]), -_pyramid(halves[1])], axis).flatten()
        both.append(window / torch.linalg.vector_norm(window))
    return torch.stack(both)


def _pyramid(sides: tuple[int, ...]) -> Tensor:
    """Return nested rectangles around the centre: the m-th from outside adds 1 / (n + 1 - m)^2 (eq. 2)."""
    if 0 in sides:
        return torch.zeros(sides)
    centres = [torch.arange(side) - side // 2 for side in sides]
    away = torch.stack(torch.meshgrid(*centres, indexing="ij")).abs().amax(0)
    levels = 1.0 / torch.arange(1, max(sides) // 2 + 2).double().square()
    # A cell `away` from the centre lies in every rectangle but the `away` innermost ones.
    inner = torch.cat([torch.zeros(1).double(), levels.cumsum(0)])
    pyramid: Tensor = (inner[-1] - inner[away]).float()
    return pyramid
