"""Preprocessing inside a model: from raw values to what a network was made for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from titer.core.errors import SpecError, unknown
from titer.core.record import ClinicalData, Samples

Preprocess = Callable[[Tensor], Tensor]
Setting = str | dict[str, list[float]] | None

_NAMED = ("standardize", "standardize-each", "unit", "none")
_TINY = 1e-6
_BY_KIND = {"image": "unit", "text": "none"}


def check_preprocess(preprocess: Setting, where: str) -> None:
    """Refuse a preprocessing that is none, whatever the data."""
    if preprocess is None or isinstance(preprocess, str):
        if preprocess is not None and preprocess not in _NAMED:
            raise unknown(where, preprocess, _NAMED)
        return
    if set(preprocess) != {"mean", "sd"}:
        raise SpecError(f"{where} has the keys {', '.join(sorted(preprocess))}: allowed are exactly mean and sd")
    for key, values in preprocess.items():
        if not values or not all(math.isfinite(v) and (key == "mean" or v > 0) for v in values):
            allowed = "finite numbers" if key == "mean" else "positive, finite numbers"
            raise SpecError(f"{where}.{key} = {values!r} is not allowed: {allowed}, one a channel or feature")


def preprocessing(setting: Setting, data: ClinicalData, train: Samples, where: str) -> tuple[Preprocess, Any]:
    """Return the map from raw values to the network's, and what to record of it."""
    chosen = setting or _BY_KIND.get(data.kind, "standardize")
    if chosen == "none":
        return lambda x: x, "none"
    if chosen == "standardize-each":
        return _each, "standardize-each"
    if chosen == "unit":
        if data.value_range is None:
            raise SpecError(f"{where} = 'unit' is not allowed: {data.name} has no value range; standardize or none is")
        low, high = data.value_range
        return lambda x: (x - low) / (high - low), ["unit", low, high]
    mean, sd = _moments(train.x) if isinstance(chosen, str) else _given(chosen, train.x.shape[1], where)
    shape = (-1, *[1] * (train.x.dim() - 2))
    mean, sd = mean.view(shape), sd.view(shape)
    recorded = {"mean": mean.flatten().tolist(), "sd": sd.flatten().tolist()}
    return lambda x: (x - mean.to(x)) / sd.to(x), recorded


def _each(x: Tensor) -> Tensor:
    """Return x [N, C, ...] with each row at mean 0 and SD 1 over its own values, differentiable in a plain row too."""
    variance, mean = torch.var_mean(x, dim=tuple(range(1, x.dim())), correction=0, keepdim=True)
    return (x - mean) / (variance + _TINY).sqrt()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and SD over rows and pixels, one a channel or feature; an SD of 0 becomes 1."""
    x = x.detach().cpu()
    over = [dim for dim in range(x.dim()) if dim != 1]
    sd, mean = torch.std_mean(x, dim=over, correction=0)
    return mean, torch.where(sd > 0, sd, 1.0)


def _given(moments: Mapping[str, list[float]], count: int, where: str) -> tuple[Tensor, Tensor]:
    for key, values in moments.items():
        if len(values) not in (1, count):
            raise SpecError(
                f"{where}.{key} has {len(values)} values: allowed are 1 or {count}, one a channel or feature"
            )
    return torch.tensor(moments["mean"]), torch.tensor(moments["sd"])
