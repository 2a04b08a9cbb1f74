"""A model behind the Open Inference Protocol (KServe V2): scores or decisions of rows, asked over HTTP with JSON.

Protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from titer.assess.endpoint import Datatype, Endpoint, read_token, trusted
from titer.assess.http_json import Channel
from titer.core.errors import TargetFailed
from titer.core.outputs import decided

_SENT: dict[Datatype, type[np.generic]] = {
    "FP32": np.float32, "FP64": np.float64, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
}  # fmt: skip
_TOLD = ("name", "versions", "platform", "inputs", "outputs")
_OUTAGE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Budget:
    """How many rows may be sent and how many were; None is no limit."""

    allowed: int | None
    spent: int = 0

    def spend(self, rows: int) -> None:
        """Count rows before they are sent; TargetFailed where there are not so many left."""
        if self.allowed is not None and self.spent + rows > self.allowed:
            raise TargetFailed(
                f"the budget of max_queries = {self.allowed} is too small: {self.spent} rows were sent, "
                f"and the next call needs {rows} more"
            )
        self.spent += rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel:
    """Scores, or one-hot decisions, of the `classes` for preprocessed rows [N, ...]; `digest` names what answers.

    A server may give two classes one score, that of the second. `columns` holds it to what it answered first.
    """

    channel: Channel
    path: str
    entry: str
    exit: str
    endpoint: Endpoint
    classes: int
    digest: str
    budget: Budget = field(repr=False)
    columns: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return float32[N, classes], or [N, 1], on the device of `x`, without a graph of gradients.

        Raises:
            TargetFailed: the budget is spent, or the server gave no usable answer.
        """
        rows = x.detach().cpu().numpy()
        if not np.isfinite(rows).all():
            raise TargetFailed("rows with NaN or infinite values cannot be sent as JSON")
        self.budget.spend(len(rows))
        size = self.endpoint.batch_size
        parts = [self._scores(rows[i : i + size]) for i in range(0, len(rows), size)]
        scores = torch.from_numpy(np.concatenate(parts or [np.zeros((0, self._columns[0]), np.float32)]))
        scores = scores.to(x.device)
        return scores if self.endpoint.access == "scores" else decided("classes", scores)

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Return float32[n, classes] for one request's rows."""
        datatype = self.endpoint.datatype
        tensor = {"name": self.entry, "shape": list(rows.shape), "datatype": datatype, "data": _encoded(rows, datatype)}
        answer = self.channel.post(self.path, {"inputs": [tensor], "outputs": [{"name": self.exit}]})
        values = self._values(answer)
        if self.endpoint.access == "decision" and values.size == len(rows):
            return self._one_hot(values.reshape(-1))
        if values.shape == (len(rows),) and 1 in self._columns:
            values = values.reshape(-1, 1)
        if values.ndim != 2 or len(values) != len(rows) or values.shape[1] not in self._columns:
            allowed = " or ".join(str([len(rows), columns]) for columns in self._columns)
            raise self._wrong(f"has the shape {list(values.shape)}: allowed is {allowed}")
        scores: np.ndarray = values.astype(np.float32)
        return scores

    @property
    def _columns(self) -> tuple[int, ...]:
        """How many scores a row may have."""
        if self.columns is not None:
            return (self.columns,)
        alone = self.classes == 2 and self.endpoint.access == "scores"
        return (self.classes, 1) if alone else (self.classes,)

    def _values(self, answer: Any) -> np.ndarray:
        """Return the answer's tensor, finite numbers in the shape that it claims."""
        found = _tensors(answer, "outputs")
        tensor = next((one for one in found if one["name"] == self.exit), None)
        if tensor is None:
            raise self._wrong(f"is not in the answer: it holds {_names(found)}")
        try:
            values = np.asarray(tensor["data"])
            shaped = values.reshape([int(size) for size in tensor["shape"]])
        except (KeyError, TypeError, ValueError):
            raise self._wrong("has no data of the shape that it claims") from None
        if values.dtype.kind not in "fiu" or tensor.get("datatype") == "BYTES":
            raise self._wrong(f"is of datatype {tensor.get('datatype')!r}: allowed are numbers")
        if self.endpoint.access == "scores" and "INT" in str(tensor.get("datatype")):
            raise self._wrong(f"is of datatype {tensor['datatype']}: scores are not whole numbers, decisions are")
        with np.errstate(over="ignore"):
            usable = np.isfinite(shaped.astype(np.float32)).all()
        if not usable:
            raise self._wrong("has NaN or infinite values: allowed are finite numbers")
        return shaped

    def _one_hot(self, classes: np.ndarray) -> np.ndarray:
        if not np.isin(classes, np.arange(self.classes)).all():
            raise self._wrong(f"names a class that is none: allowed are 0 to {self.classes - 1}")
        rows: np.ndarray = np.eye(self.classes, dtype=np.float32)[classes.astype(int)]
        return rows

    def _wrong(self, problem: str) -> TargetFailed:
        return self.channel.fail(self.path, f"answered wrongly: output {self.exit!r} {problem}")


def _encoded(rows: np.ndarray, datatype: Datatype) -> list[float]:
    """Return the values row by row; whole-number types get the nearest value that they hold."""
    sent = _SENT[datatype]
    if issubclass(sent, np.integer):
        limits = np.iinfo(sent)
        rows = rows.astype(np.float64).round().clip(limits.min, limits.max)
        return [int(value) for value in rows.ravel()]
    values: list[float] = rows.astype(sent).ravel().tolist()
    return values


def open_remote(endpoint: Endpoint, classes: int, *, folder: Path, where: str) -> RemoteModel:
    """Ask the server whether it is ready and what its model takes; return the model.

    Raises:
        SpecError: the token or the certificates that the settings name are not there.
        TargetFailed: the server is not there, not ready, or its model does not fit the settings.
    """
    channel = Channel(
        base=endpoint.url.rstrip("/"),
        timeout=endpoint.timeout,
        retries=endpoint.retries,
        context=trusted(endpoint, folder, where),
        token=read_token(endpoint, folder, where),
    )
    channel.get("/v2/health/ready")
    path = f"/v2/models/{quote(endpoint.model, safe='')}"
    path += "" if endpoint.version is None else f"/versions/{quote(endpoint.version, safe='')}"
    told = channel.get_json(path)
    entry = _chosen(channel, path, _tensors(told, "inputs"), endpoint.input, f"{where}.input")
    exit_ = _chosen(channel, path, _tensors(told, "outputs"), endpoint.output_name, f"{where}.output_name")
    if entry.datatype not in ("", endpoint.datatype):
        problem = f"takes {entry.datatype} as {entry.name!r}, not {where}.datatype = {endpoint.datatype!r}"
        raise channel.fail(path, problem)
    return RemoteModel(
        channel=channel,
        path=f"{path}/infer",
        entry=entry.name,
        exit=exit_.name,
        endpoint=endpoint,
        classes=classes,
        digest=_digest(endpoint, told),
        budget=Budget(allowed=endpoint.max_queries),
    )


class _Named(NamedTuple):
    """A tensor of the model: its name, and its datatype where the server tells it."""

    name: str
    datatype: str = ""


def _chosen(channel: Channel, path: str, told: list[dict[str, Any]], wanted: str | None, where: str) -> _Named:
    """Return the tensor that the plan names, or the only one; a server need not list any."""
    found = [one for one in told if wanted in (None, one["name"])]
    if wanted is not None and not told:
        return _Named(wanted)
    if len(found) != 1:
        asked = "is not given" if wanted is None else f"= {wanted!r} is not one of them"
        raise channel.fail(path, f"lists the tensors {_names(told)}: {where} {asked}, set it to one")
    return _Named(found[0]["name"], str(found[0].get("datatype") or ""))


def _tensors(answer: Any, key: str) -> list[dict[str, Any]]:
    """Return the named tensors under `key`, whatever the server sent."""
    listed = answer.get(key) if isinstance(answer, dict) else None
    found = listed if isinstance(listed, list) else []
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]


def _names(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(repr(one["name"][:60]) for one in tensors[:5]) or "none"


def _digest(endpoint: Endpoint, told: Any) -> str:
    """Return the sha256 of where the model answers and what the server says of it; weights cannot be seen."""
    said = {key: told.get(key) for key in _TOLD} if isinstance(told, dict) else {}
    parts = {"url": endpoint.url, "model": endpoint.model, "version": endpoint.version, "said": said}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Outage(NamedTuple):
    """When a server failed while a model was built, and how."""

    moment: float
    reason: str


_outages: dict[Endpoint, _Outage] = {}


@contextmanager
def remembered(endpoint: Endpoint) -> Iterator[None]:
    """Remember for a minute that building this model failed, and fail at once until then.

    A worker builds a model once for each defence: without this, a server that is gone would cost each its time-outs.
    """
    known = _outages.get(endpoint)
    if known is not None and time.monotonic() - known.moment < _OUTAGE_SECONDS:
        raise TargetFailed(known.reason)
    try:
        yield
    except TargetFailed as failure:
        _outages[endpoint] = _Outage(time.monotonic(), failure.reason)
        raise
    _outages.pop(endpoint, None)


def forget_outages() -> None:
    """Forget which servers failed: a new assessment asks them anew."""
    _outages.clear()
