"""Images that show the same: near-duplicates, which would let a split leak where no patients are named."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

_THUMBNAIL = 12


def likeness(x: np.ndarray) -> np.ndarray:
    """Return float32[N, N], the correlation of the images x [N, C, H, W] as thumbnails of 12 x 12; plain ones have none."""
    tiny = functional.adaptive_avg_pool2d(torch.from_numpy(x.astype(np.float32)).mean(1, keepdim=True), _THUMBNAIL)
    flat = tiny.flatten(1) - tiny.mean((1, 2, 3))[:, None]
    unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return (unit @ unit.T).numpy()


def twins(x: np.ndarray, limit: float) -> np.ndarray:
    """Return int[N]: the group of each image; images more alike than `limit`, directly or by others, share one."""
    from scipy.sparse.csgraph import connected_components

    return np.asarray(connected_components(likeness(x) > limit, directed=False)[1])
