"""JPEG sanitization: compress and decompress every image before the model sees it."""

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor

from titer.core.errors import Incompatible
from titer.core.extras import need
from titer.core.model import Model
from titer.core.plugins import defense
from titer.core.protocols import Defense, TrainingData
from titer.engine.in_front import in_front, straight_through

_BLOCK, _HIGHEST, _PIXELS = 8, 65_000, 2**24
"""Pixels of a block's side, the height that an image may have, and pixels at which Pillow smells no bomb yet."""


@defense(
    "jpeg",
    paper="Dziugaite, Ghahramani, Roy 2016, arXiv:1608.00853; attacked with BPDA, arXiv:1802.00420, section 4.1",
)
def jpeg(*, quality: Annotated[int, Field(ge=1, le=95)] = 75) -> Defense:
    """JPEG sanitization.

    Compression has no useful derivative, so the model declares a surrogate: the compressed image forward, the identity
    backward. An attacker who adapts uses it, and so does every gradient attack here.

    Args:
        quality: Pillow's JPEG quality.
    """
    image = need("PIL.Image", "imaging")

    def run(model: Model, train: TrainingData, *, rng: Generator) -> Model:  # noqa: ARG001 - the protocol's signature
        shape = train.train.x.shape[1:]
        if len(shape) != 3 or shape[0] not in (1, 3) or train.value_range is None:
            raise Incompatible(f"jpeg takes 2-D images of 1 or 3 channels, not rows of shape {tuple(shape)}")
        low, high = train.value_range

        def compress(x: Tensor) -> Tensor:
            return _compress(image, x, low, high, quality)

        return in_front(model, compress, straight_through(compress))

    return run


def _compress(image: Any, x: Tensor, low: float, high: float, quality: int) -> Tensor:
    """Return [N, C, H, W] compressed and decompressed, in the raw range; without a gradient."""
    if not len(x):
        return x.detach().clone()
    grey = ((x.detach() - low) * (255.0 / (high - low))).round().clamp(0, 255)
    pixels = grey.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    if pixels.shape[-1] == 1:
        out = np.concatenate([_stacked(image, part, quality) for part in np.split(pixels[..., 0], _cuts(pixels))])
        out = out[..., None]
    else:
        out = np.stack([_round_trip(image, one, quality) for one in pixels])
    back = torch.from_numpy(out).to(x.device).permute(0, 3, 1, 2).to(x.dtype)
    return (back * ((high - low) / 255.0) + low).contiguous()


def _cuts(pixels: np.ndarray) -> list[int]:
    """Return where to cut images [N, H, W, 1] so that each stack keeps the limits on height and on pixels."""
    height, width = pixels.shape[1] + _BLOCK, pixels.shape[2]
    at_once = max(1, min(_HIGHEST // height, _PIXELS // (height * width)))
    return list(range(at_once, len(pixels), at_once))


def _stacked(image: Any, pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return grey images [n, H, W] compressed as one tall image: what each by itself gives, many times as fast.

    Blocks of 8 x 8 are coded by themselves, and an image whose height is no multiple of 8 is continued by its last
    row, as libjpeg does at the end of an image. (Colour is halved in size first, which mixes neighbours.)
    """
    count, height, width = pixels.shape
    more = -height % _BLOCK
    tall = np.pad(pixels, ((0, 0), (0, more), (0, 0)), mode="edge").reshape(-1, width)
    return _round_trip(image, tall, quality).reshape(count, height + more, width)[:, :height]


def _round_trip(image: Any, pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(image.open(buffer))
