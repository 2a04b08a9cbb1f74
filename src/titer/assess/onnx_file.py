"""ONNX files, run by onnxruntime on the CPU: scores of raw rows, and no gradient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from titer.core.errors import SpecError
from titer.core.extras import need

_FLOAT = "tensor(float)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """A graph with one float32 input; `batch` is its fixed number of rows, None where any is taken."""

    session: Any
    entry: str
    exit: str
    batch: int | None
    digest: str

    def __call__(self, x: Tensor) -> Tensor:
        """Return the graph's output for rows [N, ...], on the device of `x`, without a graph of gradients."""
        rows = np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float32)
        if self.batch is None:
            return torch.from_numpy(self._run(rows)).to(x.device)
        parts = [self._padded(rows[i : i + self.batch], self.batch) for i in range(0, len(rows), self.batch)]
        return torch.from_numpy(np.concatenate(parts)).to(x.device)

    def _padded(self, rows: np.ndarray, batch: int) -> np.ndarray:
        """Run fewer rows than the graph takes: the last one is repeated, and its copies are dropped."""
        lacking = batch - len(rows)
        full = np.concatenate([rows, np.repeat(rows[-1:], lacking, axis=0)]) if lacking else rows
        return self._run(full)[: len(rows)]

    def _run(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.session.run([self.exit], {self.entry: rows})[0])


def open_onnx(path: Path, where: str) -> OnnxFile:
    """Open an ONNX file.

    Raises:
        SpecError: no such file, no graph that onnxruntime can read, or other inputs and outputs than one of float32.
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    runtime = need("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises a class of its own for each of its status codes
        reason = (str(error).splitlines() or [""])[0][:160]
        raise SpecError(f"{where} = {str(path)!r} is not an ONNX file that onnxruntime can run: {reason}") from None
    entry = _only(session.get_inputs(), "inputs", f"{where} = {str(path)!r}")
    exit_ = _only([one for one in session.get_outputs() if one.type == _FLOAT], "outputs", f"{where} = {str(path)!r}")
    if entry.type != _FLOAT:
        raise SpecError(f"{where} = {str(path)!r} takes {entry.type}: allowed is {_FLOAT}, which is float32")
    batch = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None
    return OnnxFile(session=session, entry=entry.name, exit=exit_.name, batch=batch, digest=_digest(path))


def _only(found: list[Any], what: str, where: str) -> Any:
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise SpecError(f"{where} has {len(found)} float32 {what} ({names}): allowed is one")
    return found[0]


def _digest(path: Path) -> str:
    """Return the sha256 of the file, and of the weights beside it where it keeps them there (`x.onnx.data`)."""
    sha = hashlib.sha256(path.read_bytes())
    for part in sorted(path.parent.glob(f"{path.name}[._]*")):
        sha.update(part.read_bytes())
    return sha.hexdigest()
