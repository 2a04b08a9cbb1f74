"""The models of a plan: a registered network, one by import path, its weights, an ONNX file, or a remote model."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict
from torch import Tensor, nn

from titer.assess.adapters import Adapted, Adapter, InUnits, adapter
from titer.assess.endpoint import read_endpoint
from titer.assess.given_weights import loaded
from titer.assess.hugging_face import Reading, open_classifier
from titer.assess.imports import check_import_path, import_factory, source_digest
from titer.assess.onnx_file import open_onnx
from titer.assess.preprocess import Preprocess, check_preprocess, preprocessing
from titer.assess.probe import Probe, guarded
from titer.assess.remote import open_remote, remembered
from titer.core.errors import SpecError, TargetFailed, unknown
from titer.core.lexicon import ReadsWords
from titer.core.model import Model, network_model
from titer.core.plugins import make, make_estimator, plugin
from titer.core.record import ClinicalData, Samples
from titer.core.registry import parse
from titer.core.threat import Logits
from titer.training.weights import digest

_KINDS = ("network", "estimator", "onnx", "endpoint", "huggingface")
_PROBED_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One `[[models]]` table of a plan; exactly one of the `_KINDS`.

    `network` is a registered network or an import path (`mypkg.net:build`), plain or as a table with its settings.
    `weights` is a .safetensors file or a state dict that loads with weights_only=True. `onnx` is a file that
    onnxruntime runs: an attacker sees its scores, never a gradient. `estimator` is a model that is no network and is
    trained here, as a name or a table with its settings: an attacker sees its scores too. `endpoint` is a table that
    says where a remote model answers (`Endpoint`). `huggingface` is a folder with a classifier of sequences as the
    library transformers keeps one, for notes. `output` says what the network, the file or the server returns.
    `preprocess` maps raw values to the network's: `unit` is (x - low) / (high - low), the default for images;
    `standardize` takes mean and SD of the training part, the default for tables; `standardize-each` takes those of the
    row itself, as MR scanners have no common unit; a table {mean, sd} gives them in raw values, one a channel or
    feature.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    label: str
    network: str | dict[str, Any] | None = None
    estimator: str | dict[str, Any] | None = None
    weights: str | None = None
    onnx: str | None = None
    endpoint: dict[str, Any] | None = None
    huggingface: str | None = None
    output: Literal["logits", "probabilities"] = "logits"
    preprocess: Literal["standardize", "standardize-each", "unit", "none"] | dict[str, list[float]] | None = None


def _kind(spec: ModelSpec) -> str:
    return next(kind for kind in _KINDS if getattr(spec, kind) is not None)


def pretrained(spec: ModelSpec) -> bool:
    """Return whether the model comes with its weights, so that nothing is trained."""
    return spec.weights is not None or (spec.network is None and spec.estimator is None)


def check_spec(spec: ModelSpec, where: str) -> None:
    """Check what can be checked without the data.

    Raises:
        SpecError: not exactly one of the kinds of models, weights without a network, an unknown network, estimator or
            setting, or a preprocessing that is none.
    """
    if not spec.label.strip():
        raise SpecError(f"{where}.label = {spec.label!r} is not allowed: a model needs a name")
    kinds = [kind for kind in _KINDS if getattr(spec, kind) is not None]
    if len(kinds) != 1:
        given = f"{' and '.join(kinds)} are" if kinds else "none is"
        raise SpecError(f"{where} needs exactly one of {', '.join(_KINDS[:-1])} and {_KINDS[-1]}: {given} given")
    for key in ("weights",) if spec.estimator is None else ("weights", "preprocess"):
        if getattr(spec, key) is not None and spec.network is None:
            given = f"{where}.{key} = {getattr(spec, key)!r}"
            raise SpecError(f"{given} is not allowed with {kinds[0]}: it has its own {key}")
    if spec.output not in ("logits", "probabilities"):
        raise unknown(f"{where}.output", spec.output, ("logits", "probabilities"))
    check_preprocess(spec.preprocess, f"{where}.preprocess")
    if spec.endpoint is not None:
        read_endpoint(spec.endpoint, f"{where}.endpoint")
    if spec.estimator is not None:
        make_estimator(spec.estimator, f"{where}.estimator")
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
        TargetFailed: a remote model cannot be asked now, or does not answer as it must.
    """
    check_spec(spec, where)
    preprocess, recorded = preprocessing(spec.preprocess, data, train, f"{where}.preprocess")
    probe = Probe(rows=train.x[:_PROBED_ROWS].to(device), classes=len(data.classes), seed=seed, output=data.output)
    # A network that is trained here learns a value in standard deviations, whatever its unit.
    learned = train.y.to(device) if data.output == "value" and not pretrained(spec) else None
    with _outage_known(spec):
        made = _made(spec, preprocess, probe, folder, device, where, learned, _reading(data, train))
    # What the weights' digest does not see: the same weights behind another preprocessing are another model.
    built = {"network": spec.network, "source": made.source, "output": spec.output, "preprocess": recorded}
    built |= {} if spec.endpoint is None else {"access": made.model.access}
    built |= {} if data.output == "classes" else {"kind": data.output}
    own = {
        "model": spec.label,
        "pretrained": "yes" if pretrained(spec) else "no",
        "build": json.dumps(built, sort_keys=True),
    }
    return replace(made.model, output=data.output, provenance={**made.model.provenance, **own})


def _reading(data: ClinicalData, train: Samples) -> Reading | None:
    return None if data.lexicon is None else Reading(data.lexicon, train.x, data.classes)


def _outage_known(spec: ModelSpec) -> AbstractContextManager[None]:
    return nullcontext() if spec.endpoint is None else remembered(read_endpoint(spec.endpoint, "endpoint"))


def _made(
    spec: ModelSpec,
    preprocess: Preprocess,
    probe: Probe,
    folder: Path,
    device: str,
    where: str,
    learned: Tensor | None,
    reading: Reading | None,
) -> _Made:
    """Return the model, its outputs probed; `learned` are the values that a network is to learn in their unit."""
    if spec.endpoint is not None:
        where = f"{where}.endpoint"
        made = _remote_model(spec, preprocess, probe, folder, where)
        output = spec.output if made.model.access == "scores" else "decision"
        replace(probe, unsteady=TargetFailed).check(made.raw, output, where)
        return made
    if spec.onnx is not None:
        made = _onnx_model(spec, preprocess, probe, folder, f"{where}.onnx")
    else:
        made = _network_model(spec, preprocess, probe, folder, device, where, learned, reading)
    probe.check(made.raw, spec.output, f"{where}.{_kind(spec)}")
    return made


def _network_model(
    spec: ModelSpec,
    preprocess: Preprocess,
    probe: Probe,
    folder: Path,
    device: str,
    where: str,
    learned: Tensor | None,
    reading: Reading | None,
) -> _Made:
    here = f"{where}.{_kind(spec)}"
    net, source = _network(spec, probe, folder, here, reading)
    if reading is not None and isinstance(net, ReadsWords):
        guarded(partial(net.read, reading.lexicon, reading.notes), probe.seed, here)
    net = (net if learned is None else InUnits.of(net, learned)).to(device).eval()

    def raw(x: Tensor) -> Tensor:
        out: Tensor = net(preprocess(x))
        return out

    # The first pass gives lazy layers their shapes, so that weights can be compared and loaded.
    seen = probe.run(raw, here)
    if spec.weights is not None:
        net = loaded(net, probe, folder / spec.weights, f"{where}.weights")
    adapted = adapter(probe.form, spec.output, seen)
    whole = net if adapted is None else Adapted(net, adapted)
    return _Made(network_model(spec.label, whole, preprocess, {"weights": digest(net.state_dict())}), raw, source)


def _network(spec: ModelSpec, probe: Probe, folder: Path, where: str, reading: Reading | None) -> tuple[nn.Module, str]:
    """Return a network with weights drawn from the seed, and the sha256 of the source that an import path names."""
    if spec.huggingface is not None:
        return open_classifier(folder / spec.huggingface, reading, where), ""
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


def _onnx_model(spec: ModelSpec, preprocess: Preprocess, probe: Probe, folder: Path, where: str) -> _Made:
    assert spec.onnx is not None
    file = open_onnx(folder / spec.onnx, where)

    def raw(x: Tensor) -> Tensor:
        return file(preprocess(x))

    logits = _in_logits(raw, adapter(probe.form, spec.output, probe.run(raw, where)))
    return _Made(Model(name=spec.label, logits=logits, access="scores", provenance={"weights": file.digest}), raw)


def _in_logits(raw: Logits, adapted: Adapter | None) -> Logits:
    return raw if adapted is None else lambda x: adapted(raw(x))


def _remote_model(spec: ModelSpec, preprocess: Preprocess, probe: Probe, folder: Path, where: str) -> _Made:
    assert spec.endpoint is not None
    endpoint = read_endpoint(spec.endpoint, where)
    if probe.output != "classes" and (probe.output == "mask" or endpoint.access == "decision"):
        raise SpecError(
            f"{where} is not allowed with access = {endpoint.access!r} for data whose task is {probe.output!r}"
        )
    opened = open_remote(endpoint, probe.classes, folder=folder, where=where)

    def raw(x: Tensor) -> Tensor:
        return remote(preprocess(x))

    seen = probe.run(lambda x: opened(preprocess(x)), where)
    remote = replace(opened, columns=seen.shape[1])
    returns = spec.output if endpoint.access == "scores" else "logits"
    logits = _in_logits(raw, adapter(probe.form, returns, seen))
    provenance = {"weights": remote.digest, "remote": "yes"}
    return _Made(Model(name=spec.label, logits=logits, access=endpoint.access, provenance=provenance), raw)


def plain_network(net: nn.Module) -> nn.Module:
    """Return the network as the user gave it, without what turns its outputs into logits."""
    return net.net if isinstance(net, Adapted) else net
