"""Images that show the same: near-duplicates, which would let a split leak where no patients are named."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional

from titer.modalities._checks import listed

Rows = TypeVar("Rows", np.ndarray, torch.Tensor)
_THUMBNAIL = 12
_PIECE = 2**20
"""Numbers that are compared, or pixels that are averaged, at once."""


def twins(x: np.ndarray, limit: float) -> np.ndarray:
    """Return int[N]: the group of each of the images x [N, C, H, W]; those more alike, directly or by others, share it.

    How alike two images are is the correlation of their thumbnails of 12 x 12, and more than `limit` is too much. Rows
    are compared in pieces: all pairs at once would need memory that grows with the square of N.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    unit = _thumbnails(x)
    pairs = []
    for start, rows in _pieces(unit, len(unit)):
        row, column = (rows @ unit.T > limit).nonzero(as_tuple=True)
        pairs.append((row.numpy() + start, column.numpy()))
    first, second = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    joined = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(len(unit), len(unit)))
    return np.asarray(connected_components(joined, directed=False)[1])


def _thumbnails(x: np.ndarray) -> torch.Tensor:
    """Return float32[N, 144]: grey thumbnails of mean 0 and length 1."""
    tiny = []
    for _, rows in _pieces(x, x[0].size):
        grey = torch.from_numpy(rows.astype(np.float32)).mean(1, keepdim=True)
        tiny.append(functional.adaptive_avg_pool2d(grey, _THUMBNAIL).flatten(1))
    flat = torch.cat(tiny)
    flat = flat - flat.mean(1, keepdim=True)
    lengths: torch.Tensor = flat.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return flat / lengths


def _pieces(rows: Rows, size: int) -> Iterator[tuple[int, Rows]]:
    """Yield the rows some at a time, each with the place of its first; one row stands for `size` numbers."""
    step = max(1, _PIECE // size)
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]


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
