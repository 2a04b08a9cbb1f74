"""Weights on disk: digests, safe reading of what a user gives, and the cache of what was trained."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from titer.core.errors import SpecError

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """What one training took: epochs done, CPU and wall seconds; `cached` when this run did not train it again."""

    epochs: int
    cpu_seconds: float
    wall_seconds: float
    cached: bool = False


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, shapes and values of a state dict."""
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name}:{tuple(value.shape)}:{value.dtype}".encode())
        sha.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: to a temporary name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    # Cloned, as safetensors refuses two names for one tensor (tied weights).
    own = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        save_file(own, partial, metadata=dict(metadata))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path, where: str) -> State:
    """Read a user's weights: safetensors, or a state dict that holds tensors only. Nothing is unpickled.

    Raises:
        SpecError: no such file, a damaged file, or a pickle with more than tensors.
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _tensors(path)
    except Exception as error:  # noqa: BLE001 - a damaged file makes torch and safetensors raise a dozen kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        what = "is not a safetensors file" if path.suffix == ".safetensors" else "is damaged or holds more than tensors"
        raise SpecError(
            f"{where} = {str(path)!r} {what} ({reason}): allowed are .safetensors files "
            "and state dicts that load with weights_only=True"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SpecError(f"{where} = {str(path)!r} holds a {type(state).__name__}: allowed is a state dict of tensors")
    return dict(state)


def _tensors(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's pickle protocol: it is read, or refused, all the same
        return torch.load(path, map_location="cpu", weights_only=True)


def cached(cache: Path | None, key: str) -> tuple[State, TrainingCost] | None:
    """Return the weights kept under `key` with what they cost, or None; a damaged file counts as absent."""
    path = None if cache is None else cache / f"{key}.safetensors"
    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            noted = file.metadata()
        state, cost = load_file(path), TrainingCost(**(json.loads(noted["cost"]) | {"cached": True}))
        return (state, cost) if digest(state) == noted["weights"] else None
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None


def keep(cache: Path | None, key: str, state: Mapping[str, Tensor], cost: TrainingCost) -> None:
    """Keep weights under `key`; nothing where there is no cache."""
    if cache is not None:
        save(cache / f"{key}.safetensors", state, {"cost": json.dumps(asdict(cost)), "weights": digest(state)})
