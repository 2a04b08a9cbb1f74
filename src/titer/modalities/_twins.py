"""Images that show the same: near-duplicates, which would let a split leak where no patients are named."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from titer.modalities._checks import listed

_THUMBNAIL = 12


def likeness(x: np.ndarray) -> np.ndarray:
    """Return float32[N, N], the correlation of the images x [N, C, H, W] as thumbnails of 12 x 12."""
    grey = torch.from_numpy(x.astype(np.float32)).mean(1, keepdim=True)
    tiny = functional.adaptive_avg_pool2d(grey, _THUMBNAIL)
    flat = tiny.flatten(1) - tiny.mean((1, 2, 3))[:, None]
    unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return np.asarray((unit @ unit.T).numpy())


def twins(x: np.ndarray, limit: float) -> np.ndarray:
    """Return int[N]: the group of each image; images more alike than `limit`, directly or by others, share one."""
    from scipy.sparse.csgraph import connected_components

    return np.asarray(connected_components(likeness(x) > limit, directed=False)[1])


def same_content(x: np.ndarray, ids: Sequence[str], patients: Sequence[str], where: str = "data") -> list[str]:
    """Return what is wrong where images x [N, ...] of two patients have the same pixels: a test would know them."""
    seen: dict[bytes, list[int]] = defaultdict(list)
    for row, one in enumerate(x):
        seen[hashlib.sha256(np.ascontiguousarray(one).tobytes()).digest()].append(row)
    shared = [rows for rows in seen.values() if len({patients[row] for row in rows}) > 1]
    pairs = [" and ".join(ids[row] for row in rows[:3]) for rows in shared]
    if not pairs:
        return []
    return [
        f"{where}.image: several patients have the same pixels, which would be learned and tested: {listed(pairs)}; "
        "give them one patient_id, or leave all but one out"
    ]
