"""The Open Inference Protocol's messages (KServe V2, REST): read strictly, nothing guessed."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from titer.guard.judge.bundle import InputPart
from titer.guard.judge.inputs import rows_of
from titer.guard.judge.messages import Facts

INPUT, OUTPUT = "input", "probabilities"
DATATYPE = "FP32"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InputTensor(_Message):
    """One input: numbers in row-major order, nested or flat."""

    name: Literal["input"]
    shape: list[int] = Field(min_length=2, max_length=5)
    datatype: Literal["FP32"]
    data: list[Any]
    parameters: dict[str, Any] | None = None


class OutputWanted(_Message):
    """An output by name; there is one."""

    name: Literal["probabilities"]
    parameters: dict[str, Any] | None = None


class InferenceRequest(_Message):
    """A request for an inference; its id is given back, and is not the verdict's subject."""

    id: str | None = Field(default=None, max_length=64)
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputWanted] | None = Field(default=None, max_length=1)
    parameters: dict[str, Any] | None = None


def rows(request: InferenceRequest, contract: InputPart, most: int) -> NDArray[np.float32]:
    """Return the request's rows float32[N, ...]; ValueError says in one line what is wrong with them."""
    entry = request.inputs[0]
    return rows_of(entry.data, entry.shape, contract, most)


def digest(x: NDArray[np.float32]) -> str:
    """Return the SHA-256 of what is judged: the shape and the float32 values, little-endian."""
    sha = hashlib.sha256(str(tuple(x.shape)).encode())
    sha.update(np.ascontiguousarray(x, dtype="<f4").tobytes())
    return sha.hexdigest()


def metadata(facts: Facts) -> dict[str, Any]:
    """Return the model's metadata."""
    shape = list(facts.input["shape"])
    return {
        "name": facts.name,
        "versions": [facts.bundle_version],
        "platform": "titer",
        "inputs": [{"name": INPUT, "datatype": DATATYPE, "shape": [-1, *shape]}],
        "outputs": [{"name": OUTPUT, "datatype": DATATYPE, "shape": [-1, len(facts.classes)]}],
        "parameters": {
            "kind": facts.input["kind"],
            "unit": facts.input["unit"],
            "value_range": facts.input["value_range"],
            "classes": list(facts.classes),
            "model_sha256": facts.model_digest,
            "detectors": list(facts.detectors),
        },
    }


def output(chances: list[list[float]]) -> dict[str, Any]:
    """Return the one output tensor."""
    return {
        "name": OUTPUT,
        "datatype": DATATYPE,
        "shape": [len(chances), len(chances[0])],
        "data": [value for row in chances for value in row],
    }
