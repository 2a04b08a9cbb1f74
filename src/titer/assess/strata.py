"""What a split by patient keeps in proportion, for each kind of output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from titer.core.outputs import Output

_BANDS = 5
_PATIENTS = 10
"""A stratum of fewer patients could be absent from a part, and would make its splitter refuse."""


def strata(output: Output, y: Tensor, patients: Sequence[str]) -> np.ndarray:
    """Return the stratum of each row, int64[N].

    Of classes it is the class. Of findings it is the rarest one that is present, or none; of a value its fifth; of a
    mask its foreground: none, or its third by area. There, strata of few patients are joined with the largest.
    """
    if output == "classes":
        return y.numpy()
    kinds = _KINDS[output](y)
    names, kinds = np.unique(kinds, return_inverse=True)
    people = np.array(
        [len({patients[int(row)] for row in np.flatnonzero(kinds == kind)}) for kind in range(len(names))]
    )
    kinds = np.where(people[kinds] < _PATIENTS, int(people.argmax()), kinds)
    joined: np.ndarray = np.unique(kinds, return_inverse=True)[1]
    return joined


def _rarest_finding(y: Tensor) -> np.ndarray:
    order = torch.cat([y.sum(0), torch.tensor([len(y) + 1])]).argsort()
    present = torch.cat([y, torch.ones_like(y[:, :1])], dim=1)  # the last column stands for no finding
    return order[present[:, order].argmax(1)].numpy()


def _band(values: Tensor, bands: int) -> np.ndarray:
    edges = torch.quantile(values.double(), torch.linspace(0, 1, bands + 1, dtype=torch.float64)[1:-1])
    return torch.bucketize(values.double(), edges).numpy()


def _by_area(y: Tensor) -> np.ndarray:
    area = (y > 0).flatten(1).sum(1)
    kinds = np.zeros(len(y), dtype=np.int64)
    lesion = (area > 0).numpy()
    if lesion.any():
        kinds[lesion] = 1 + _band(area[area > 0], 3)
    return kinds


_KINDS: dict[Output, Callable[[Tensor], np.ndarray]] = {
    "labels": _rarest_finding,
    "value": lambda y: _band(y, _BANDS),
    "mask": _by_area,
}
