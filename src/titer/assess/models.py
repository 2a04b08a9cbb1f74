"""The models of a plan: a registered network, one by import path, its weights, or an ONNX file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict
from torch import Tensor, nn

from titer.assess.imports import check_import_path, import_factory, source_digest
from titer.assess.onnx_file import open_onnx
from titer.assess.preprocess import Preprocess, check_preprocess, preprocessing
from titer.assess.probe import Probe, guarded
from titer.core.errors import SpecError, unknown
from titer.core.model import Model, network_model
from titer.core.plugins import make, plugin
from titer.core.record import ClinicalData, Samples
from titer.core.registry import parse
from titer.core.threat import Logits
from titer.training.weights import digest, read

_PROBED_ROWS = 2
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One `[[models]]` table of a plan; exactly one of `network` and `onnx`.

    `network` is a registered network or an import path (`mypkg.net:build`), plain or as a table with its settings.
    `weights` is a .safetensors file or a state dict that loads with weights_only=True. `onnx` is a file that
    onnxruntime runs: an attacker sees its scores, never a gradient. `output` says what the network or the file
    returns. `preprocess` maps raw values to the network's: `unit` is (x - low) / (high - low), the default for images;
    `standardize` takes mean and SD of the training part, the default for tables; a table {mean, sd} gives them in raw
    values, one a channel or feature.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    label: str
    network: str | dict[str, Any] | None = None
    weights: str | None = None
    onnx: str | None = None
    output: Literal["logits", "probabilities"] = "logits"
    preprocess: Literal["standardize", "unit", "none"] | dict[str, list[float]] | None = None


def pretrained(spec: ModelSpec) -> bool:
    """Return whether the model comes with its weights, so that nothing is trained."""
    return spec.weights is not None or spec.onnx is not None


def check_spec(spec: ModelSpec, where: str) -> None:
    """Check what can be checked without the data.

    Raises:
        SpecError: not exactly one of `network` and `onnx`, weights without a network, an unknown network or setting,
            or a preprocessing that is none.
    """
    if not spec.label.strip():
        raise SpecError(f"{where}.label = {spec.label!r} is not allowed: a model needs a name")
    if (spec.network is None) == (spec.onnx is None):
        both = "both are" if spec.network is not None else "neither is"
        raise SpecError(f"{where} needs exactly one of network and onnx: {both} given")
    if spec.weights is not None and spec.network is None:
        raise SpecError(f"{where}.weights = {spec.weights!r} is not allowed with onnx: the file holds its own weights")
    if spec.output not in ("logits", "probabilities"):
        raise unknown(f"{where}.output", spec.output, ("logits", "probabilities"))
    check_preprocess(spec.preprocess, f"{where}.preprocess")
    if spec.network is not None:
        name, settings = parse(spec.network, f"{where}.network")
        if ":" in name:
            check_import_path(name, f"{where}.network")
        else:
            plugin("networks", spec.network, f"{where}.network").check(settings, f"{where}.network")


class _Made(NamedTuple):
    """A model, what it returns before it is turned into logits, and the sha256 of its source by import path."""

    model: Model
    raw: Logits
    source: str = ""


def build(
    spec: ModelSpec,
    data: ClinicalData,
    train: Samples,
    *,
    folder: Path,
    seed: int,
    device: str = "cpu",
    where: str = "models",
) -> Model:
    """Return the model, untrained where it comes without weights; two training rows have been through it.

    Args:
        spec: the plan's table.
        data: gives the classes and the value range.
        train: the training part, which `standardize` takes mean and SD of.
        folder: the plan's folder, where relative paths and import paths begin.
        seed: of the initial weights; the global random numbers are not touched.
        device: where the network runs.
        where: the setting's name in messages.

    Raises:
        SpecError: the plan, the weights, the ONNX file or what the network returns is wrong.
    """
    check_spec(spec, where)
    preprocess, recorded = preprocessing(spec.preprocess, data, train, f"{where}.preprocess")
    probe = Probe(rows=train.x[:_PROBED_ROWS].to(device), classes=len(data.classes), seed=seed)
    if spec.onnx is None:
        made = _network_model(spec, preprocess, probe, folder, device, where)
    else:
        made = _onnx_model(spec, preprocess, folder, f"{where}.onnx")
    probe.check(made.raw, spec.output, f"{where}.{'network' if spec.onnx is None else 'onnx'}")
    # What the weights' digest does not see: the same weights behind another preprocessing are another model.
    built = {"network": spec.network, "source": made.source, "output": spec.output, "preprocess": recorded}
    own = {
        "model": spec.label,
        "pretrained": "yes" if pretrained(spec) else "no",
        "build": json.dumps(built, sort_keys=True),
    }
    return replace(made.model, provenance={**made.model.provenance, **own})


def _network_model(
    spec: ModelSpec, preprocess: Preprocess, probe: Probe, folder: Path, device: str, where: str
) -> _Made:
    net, source = _network(spec, probe, folder, f"{where}.network")
    net = net.to(device).eval()

    def raw(x: Tensor) -> Tensor:
        out: Tensor = net(preprocess(x))
        return out

    # The first pass gives lazy layers their shapes, so that weights can be compared and loaded.
    probe.run(raw, f"{where}.network")
    if spec.weights is not None:
        _load(net, folder / spec.weights, f"{where}.weights")
    whole = net if spec.output == "logits" else _Logarithm(net)
    return _Made(network_model(spec.label, whole, preprocess, {"weights": digest(net.state_dict())}), raw, source)


def _network(spec: ModelSpec, probe: Probe, folder: Path, where: str) -> tuple[nn.Module, str]:
    """Return a network with weights drawn from the seed, and the sha256 of the source that an import path names."""
    assert spec.network is not None
    name, settings = parse(spec.network, where)
    source = ""
    if ":" in name:
        factory = import_factory(name, folder, where)
        source = source_digest(factory)
        draw = partial(factory, **settings)
    else:
        draw = partial(make("networks", spec.network, where), tuple(probe.rows.shape[1:]), probe.classes)
    net = guarded(draw, probe.seed, f"{where} = {name!r}")
    if not isinstance(net, nn.Module):
        raise SpecError(f"{where} = {name!r} returned a {type(net).__name__}: allowed is a torch.nn.Module")
    return net, source


def _onnx_model(spec: ModelSpec, preprocess: Preprocess, folder: Path, where: str) -> _Made:
    assert spec.onnx is not None
    file = open_onnx(folder / spec.onnx, where)

    def raw(x: Tensor) -> Tensor:
        return file(preprocess(x))

    logits = raw if spec.output == "logits" else lambda x: _logarithm(raw(x))
    return _Made(Model(name=spec.label, logits=logits, access="scores", provenance={"weights": file.digest}), raw)


def _load(net: nn.Module, path: Path, where: str) -> None:
    """Load weights; SpecError with the first keys that are missing, unexpected or of another shape."""
    state, own = read(path, where), net.state_dict()
    kinds = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ],
    }
    wrong = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    if wrong:
        raise SpecError(f"{where} = {str(path)!r} does not fit the network: {', '.join(wrong)}")
    net.load_state_dict(state)


def _first(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (" ..." if len(names) > shown else "")


def plain_network(net: nn.Module) -> nn.Module:
    """Return the network as the user gave it, without what turns its probabilities into logits."""
    return net.net if isinstance(net, _Logarithm) else net


class _Logarithm(nn.Module):
    """A network that returns probabilities, as one that returns logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithms, [N, K]."""
        probabilities: Tensor = self.net(x)
        return _logarithm(probabilities)


def _logarithm(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(_SMALLEST).log()
