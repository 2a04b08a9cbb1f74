"""Adversarial patch: one visible sticker that fools the model wherever it lies under the mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.needs import BALLS, Needs
from titer.core.plugins import Count, Positive, attack
from titer.core.protocols import Attack
from titer.core.threat import Threat
from titer.engine.joint import Lessons, Pattern, Worn, spread
from titer.engine.rows import Rows
from titer.threats.rules import Box, MutableMask

FitShare = Annotated[float, Field(gt=0, le=1)]
Size = Annotated[float, Field(gt=0, le=1)]
Shrink = Annotated[float, Field(ge=0, lt=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]


@attack(
    "patch",
    paper="Brown, Mane, Roy, Abadi, Gilmer 2017, arXiv:1712.09665, eq. 1 and 2",
    threat_ids=("NISTAML.022", "AML.T0043.000"),
    needs=Needs(norms=BALLS, mask=True),
    joint=True,
)
def patch(
    *,
    size: Size = 0.25,
    rotation: Degrees = 20.0,
    shrink: Shrink = 0.1,
    fit_share: FitShare = 0.5,
    epochs: Count = 20,
    batch: Count = 64,
    step: Positive = 0.1,
    restarts: Count = 4,
) -> Attack:
    """Adversarial patch: one square sticker for all images, at a drawn place under the threat's mask.

    Args:
        size: the sticker's side as a share of the image's shorter side.
        rotation: it is turned by up to so many degrees, either way.
        shrink: it is drawn smaller by up to this share.
        fit_share: share of the rows, drawn at random, that the sticker is learned on; it is put on all of them.
        epochs: passes over these rows; each time a row sees the sticker elsewhere.
        batch: rows a step.
        step: length of the first step as a share of the range of values; steps shrink to nothing along the way.
        restarts: searches; every second one begins at the negative of the last one's find.
    """
    lessons = Lessons(fit_share=fit_share, epochs=epochs, batch=batch, restarts=restarts)

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        sticker = _sticker(x, threat, size, rotation, shrink)
        return spread(model, x, y, threat, _pattern(x, threat, sticker, step, rng), lessons, rng=rng)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticker:
    """How the sticker may lie: its `side` in pixels, the `frame` that holds it in every turn, and `places`.

    `places` int64[places, 2] are the frame's possible upper left corners, (row, column).
    """

    side: int
    frame: int
    turn: float
    shrink: float
    places: Tensor


class Placed(NamedTuple):
    """Where each row's sticker lies: sampling points `grid` [n, H, W, 2] and `under` bool[n, 1, H, W]."""

    grid: Tensor
    under: Tensor


def _sticker(x: Tensor, threat: Threat, size: float, rotation: float, shrink: float) -> Sticker:
    if x.dim() != 4:
        raise Incompatible(f"patch needs 2-D images [N, C, H, W]: rows here are {tuple(x.shape[1:])}")
    side = max(1, round(size * min(x.shape[2:])))
    turn = math.radians(rotation) if side > 1 else 0.0
    # A square turned by an angle fills a frame of cos + sin of it, which is largest at 45 degrees.
    widest = min(turn, math.pi / 4)
    frame = math.ceil(side * (math.cos(widest) + math.sin(widest)) - 1e-9)
    closed = (~_open(x, threat)).to(x.dtype)
    if frame > min(closed.shape):
        places = closed.new_zeros(0, 2)
    else:
        places = (functional.max_pool2d(closed[None, None], frame, stride=1)[0, 0] == 0).nonzero()
    if not len(places):
        raise Incompatible(
            f"patch: a sticker of {side} pixels, turned by up to {rotation:g} degrees, fits nowhere under the mask of "
            f"{threat.name}: it needs {frame} x {frame} open pixels"
        )
    return Sticker(side=side, frame=frame, turn=turn, shrink=shrink, places=places)


def _open(x: Tensor, threat: Threat) -> Tensor:
    """Return bool[H, W]: pixels that may change in every channel."""
    masks = [rule.mask.to(x.device) for rule in threat.domain if isinstance(rule, MutableMask)]
    allowed = [mask.expand(x.shape[1:]) for mask in (*masks, threat.budget.scaled(x) > 0)]
    return reduce(torch.logical_and, allowed).all(0)


def _pattern(x: Tensor, threat: Threat, sticker: Sticker, length: float, rng: Generator) -> Pattern:
    low, high = _limits(x, threat)
    shape = (1, x.shape[1], sticker.side, sticker.side)

    def start(last: Tensor | None) -> Tensor:
        if last is not None:
            return low + high - last
        return low + (high - low) * torch.rand(shape, generator=rng).to(x)

    def wear(rows: Rows, pattern: Tensor) -> Worn:
        pattern = pattern.detach().requires_grad_()
        placed = _placed(rows, sticker)
        stuck = _stuck(rows.x, pattern, placed)
        x_adv = rows.project(stuck.detach())

        def pull(grad: Tensor) -> Tensor:
            # What the budget takes off a row's sticker is no reason to stop: other rows may still follow it.
            return torch.autograd.grad(stuck, pattern, rows.follow(x_adv, grad))[0]

        return Worn(x_adv, pull)

    def step(pattern: Tensor, grad: Tensor, left: float) -> Tensor:
        moved = pattern + length * left * (high - low) * grad.sign()
        return torch.maximum(torch.minimum(moved, high), low)

    return Pattern(start=start, wear=wear, step=step)


def _limits(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest value of a sticker in each channel, [1, C, 1, 1]: what rows and budget allow."""
    reach = threat.budget.eps * threat.budget.scaled(x)
    low, high = x - reach, x + reach
    for rule in threat.domain:
        if isinstance(rule, Box):
            low, high = rule.project(low, x), rule.project(high, x)
    return low.amin((0, 2, 3), keepdim=True), high.amax((0, 2, 3), keepdim=True)


def _placed(rows: Rows, sticker: Sticker) -> Placed:
    """Draw place, turn and size for each row (the transformations of eq. 2)."""
    height, width = rows.x.shape[2:]
    place, turn, less = rows.noise.uniform(3).to(rows.x).unbind(1)
    corner = sticker.places[(place * len(sticker.places)).long()] + (sticker.frame - 1) / 2
    angle = (2 * turn - 1) * sticker.turn
    half = sticker.side * (1 - sticker.shrink * less) / 2
    down = torch.arange(height).to(rows.x) - corner[:, :1].to(rows.x)
    right = torch.arange(width).to(rows.x) - corner[:, 1:].to(rows.x)
    cos, sin, half = (value.view(-1, 1, 1) for value in (angle.cos(), angle.sin(), half))
    across = (cos * right.unsqueeze(1) + sin * down.unsqueeze(2)) / half
    along = (cos * down.unsqueeze(2) - sin * right.unsqueeze(1)) / half
    under = (across.abs() <= 1) & (along.abs() <= 1)
    return Placed(torch.stack([across, along], 3), under.unsqueeze(1))


def _stuck(x: Tensor, pattern: Tensor, placed: Placed) -> Tensor:
    """Return the images with the sticker on (the operator A of eq. 1)."""
    on = functional.grid_sample(
        pattern.expand(len(x), -1, -1, -1), placed.grid, padding_mode="border", align_corners=False
    )
    return torch.where(placed.under, on, x)
