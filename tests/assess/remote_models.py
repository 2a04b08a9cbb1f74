"""Remote models of images on a small server, and the ways in which building or asking them fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.assess.inference_server import InferenceServer
from tests.assess.test_models import IMAGES, X, linear, samples
from torch import Tensor

from titer.assess.models import ModelSpec, build
from titer.core.errors import TargetFailed
from titer.core.model import Model

NET = linear()
PROBES = 3
"""Requests of two rows each that go out while a model is built."""


def answer(x: Tensor) -> Tensor:
    """What the server answers for preprocessed rows."""
    return NET(x)


def expected(x: Tensor = X) -> Tensor:
    """What a remote model shall return for raw rows."""
    return NET(x / 255).detach()


def remote(server: InferenceServer | str, folder: Path = Path(), *, output: str = "logits", **keys: Any) -> Model:
    """Build the model; retries are off unless a test asks for them."""
    url = server if isinstance(server, str) else server.url
    table = {"url": url, "model": "net", "retries": 0, "timeout": 5.0} | keys
    spec = ModelSpec(label="ward", endpoint=table, output=output)  # type: ignore[arg-type]
    return build(spec, IMAGES, samples(X), folder=folder, seed=0, where="models.ward")


def failure(model: Model, rows: int = 3) -> str:
    """Return how asking the model fails, one line."""
    with pytest.raises(TargetFailed) as caught:
        model.logits(X[:rows])
    assert str(caught.value).startswith("failed: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal(error: type[Exception], *arguments: Any, **keys: Any) -> str:
    """Return how building the model fails, one line."""
    with pytest.raises(error) as caught:
        remote(*arguments, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_json(content: Any) -> bytes:
    """Return the body of an answer."""
    return json.dumps(content).encode()
