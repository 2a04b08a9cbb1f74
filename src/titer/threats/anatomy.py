"""Where in an image something is, found in the clean image: the head on an MR slice, strong edges."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from titer.threats.rules import RowMask

Find = Callable[[Tensor], Tensor]
_KEPT = 4096
_BINS = 256
_RIM = 0.08
"""Scalp and skull are about this share of the head's width."""


def inside_brain() -> RowMask:
    """Return the rule that only pixels inside the head change, its rim of scalp and skull left out; [N, C, H, W]."""
    return RowMask(find=remembered(lambda row: _inner(head(row))), text="only pixels inside the brain may change")


def outside_brain() -> RowMask:
    """Return the rule that only the background around the head changes; [N, C, H, W]."""
    return RowMask(find=remembered(lambda row: ~head(row)), text="only pixels outside the head may change")


def edges(share: float = 0.25) -> RowMask:
    """Return the rule that only the `share` of pixels with the steepest gradient changes: bones, outlines, markers."""

    def steep(row: Tensor) -> Tensor:
        plane = row.mean(0)
        padded = functional.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
        slope = across**2 + down**2
        # Ties are open together: in a plain image every pixel is as steep as any other one.
        limit = slope.flatten().kthvalue(max(1, round(slope.numel() * (1 - share)))).values
        return (slope > limit).expand_as(row)

    return RowMask(
        find=remembered(steep),
        text=f"only the {share:.0%} of the pixels with the steepest edges may change: bones, outlines, markers",
    )


def head(row: Tensor) -> Tensor:
    """Return bool[C, H, W] of one slice: the largest bright region by Otsu's threshold (1979), its holes filled."""
    from scipy import ndimage

    plane = row.detach().cpu().double().mean(0).numpy()
    # The threshold parts tissue from bright tissue as often as from air: half of it is above air and below the rest.
    dark = float(plane.min())
    bright = ndimage.binary_closing(plane > dark + (otsu(plane) - dark) / 2, iterations=1)
    regions, count = ndimage.label(bright)
    if not count:
        return torch.zeros_like(row, dtype=torch.bool)
    largest = int(np.bincount(regions.ravel())[1:].argmax()) + 1
    filled = ndimage.binary_fill_holes(regions == largest)
    return torch.from_numpy(filled).to(row.device).expand_as(row).clone()


def _inner(mask: Tensor) -> Tensor:
    """Return the mask without a rim of 8 % of its mean width."""
    from scipy import ndimage

    plane = mask[0].cpu().numpy()
    rim = max(1, round(_RIM * float(plane.sum()) ** 0.5))
    inner = ndimage.binary_erosion(plane, iterations=rim)
    return torch.from_numpy(inner).to(mask.device).expand_as(mask).clone()


def otsu(values: np.ndarray) -> float:
    """Return the threshold that parts the values into the two classes of least spread (Otsu 1979, eq. 14 and 18).

    Where no value lies between the classes, every threshold between them is as good, and the middle one is returned.
    """
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return high
    counts, borders = np.histogram(values, bins=_BINS, range=(low, high))
    centres = (borders[:-1] + borders[1:]) / 2
    below = counts.cumsum() / counts.sum()
    mean = (counts * centres).cumsum() / counts.sum()
    apart = np.zeros(_BINS)
    parted = (below > 0) & (below < 1)
    apart[parted] = (mean[-1] * below[parted] - mean[parted]) ** 2 / (below[parted] * (1 - below[parted]))
    return float(borders[1:][apart >= apart.max() * (1 - 1e-9)].mean())


def remembered(find: Find) -> Find:
    """Return [N, ...] -> bool[N, ...] of a function of one row; an attack asks for the same rows hundreds of times."""
    known: OrderedDict[bytes, Tensor] = OrderedDict()

    def found(row: Tensor) -> Tensor:
        key = row.detach().cpu().contiguous().numpy().tobytes()
        mask = known.get(key)
        if mask is None:
            mask = known[key] = find(row)
            if len(known) > _KEPT:
                known.popitem(last=False)
        return mask.to(row.device)

    def all_rows(x: Tensor) -> Tensor:
        return torch.stack([found(row) for row in x]) if len(x) else torch.zeros_like(x, dtype=torch.bool)

    return all_rows
