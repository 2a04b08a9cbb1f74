"""The model and the detectors of a bundle, as they stand in the worker's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from titer.core.errors import Incompatible, SpecError
from titer.core.extras import need
from titer.core.lexicon import WordEmbedding
from titer.core.model import Model, network_model
from titer.core.plugins import make, make_detector
from titer.core.protocols import Alarm
from titer.engine.alarm import Keepable
from titer.engine.one_pass import sharing
from titer.guard.judge.bundle import Bundle, Moments, Pinned, read_bundle
from titer.stats.alarms import thresholds

_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A bundle at work; `clean` float64[N, D] are the detectors' scores of clean rows.

    `known` keeps the thresholds that were asked for: to find them takes longer than a pass of a small model.
    """

    pinned: Pinned
    model: Model
    alarms: tuple[Alarm, ...]
    clean: NDArray[np.float64]
    known: dict[int, dict[str, float]] = field(default_factory=dict)

    def limits(self, inputs: int) -> dict[str, float]:
        """Return each detector's threshold for the highest score of `inputs` of one verdict.

        The stated rate is that of the verdict: with several inputs each has its share (Bonferroni's rule). Where there
        are too few clean rows for that, it is the highest score of all of them, and the rate is what they allow:
        at most inputs x detectors / (N + 1).
        """
        if inputs not in self.known:
            self.known[inputs] = self._limits(inputs)
        return self.known[inputs]

    def _limits(self, inputs: int) -> dict[str, float]:
        if not self.alarms:
            return {}
        assert self.pinned.bundle.calibration is not None
        try:
            found = thresholds(self.clean, self.pinned.bundle.calibration.rate / max(inputs, 1))
        except Incompatible:
            found = self.clean.max(0)
        return {alarm.name: float(limit) for alarm, limit in zip(self.alarms, found, strict=True)}


def load(folder: Path) -> Loaded:
    """Load a bundle, every digest checked.

    Raises:
        SpecError: a file is missing, changed, or does not fit the others.
    """
    pinned = read_bundle(folder)
    model = sharing(load_model(pinned))
    alarms = tuple(_alarm(pinned, model, place) for place in range(len(pinned.bundle.detectors)))
    return Loaded(pinned=pinned, model=model, alarms=alarms, clean=_clean(pinned))


def load_model(pinned: Pinned) -> Model:
    """Return the bundle's model: logits of raw rows.

    Raises:
        SpecError: the weights do not fit the network, or the graph is none that onnxruntime can run.
    """
    bundle = pinned.bundle
    preprocess = _preprocess(bundle)
    path = pinned.file(bundle.model.weights)
    if bundle.model.format == "onnx":
        run = _graph(path)
        back = torch.log if bundle.model.returns == "probabilities" else _same
        return Model(
            name=bundle.name,
            logits=lambda x: back(run(preprocess(x)).clamp_min(_floor(bundle))),
            output=bundle.output,
            access="scores",
        )
    if bundle.model.network is None:
        raise SpecError(f"{path}: safetensors need model.network, the network that they are weights of")
    net = make("networks", bundle.model.network, "model.network")(bundle.input.shape, len(bundle.classes))
    _fill(net, path)
    made = network_model(bundle.name, net, preprocess, {"weights": pinned.model_digest})
    return Model(
        name=made.name,
        logits=made.logits,
        net=made.net,
        rebuild=made.rebuild,
        output=bundle.output,
        provenance=made.provenance,
    )


def _floor(bundle: Bundle) -> float:
    return _SMALLEST if bundle.model.returns == "probabilities" else -float("inf")


def _same(x: Tensor) -> Tensor:
    return x


def _fill(net: nn.Module, path: Path) -> None:
    state = load_file(path)
    for name, part in net.named_modules():
        if isinstance(part, WordEmbedding):  # its tables are as long as the lexicon that it was told
            for own in ("table", "start"):
                setattr(part, own, state.get(f"{name}.{own}" if name else own, getattr(part, own)).clone())
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise SpecError(f"{path} does not fit model.network: {reason}") from None
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _preprocess(bundle: Bundle) -> Callable[[Tensor], Tensor]:
    chosen = bundle.model.preprocess
    if isinstance(chosen, Moments):
        shape = (-1, *[1] * (len(bundle.input.shape) - 1))
        mean, sd = (torch.tensor(values).view(shape) for values in (chosen.mean, chosen.sd))
        return lambda x: (x - mean) / sd
    if isinstance(chosen, tuple):
        _, low, high = chosen
        return lambda x: (x - low) / (high - low)
    return _same


def _graph(path: Path) -> Callable[[Tensor], Tensor]:
    """Return an ONNX graph of one float32 input and one output, on one thread of the CPU."""
    runtime: Any = need("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(path.read_bytes(), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises a class of its own for each of its status codes
        raise SpecError(f"{path} is no graph that onnxruntime can run: {type(error).__name__}") from None
    entries, exits = session.get_inputs(), session.get_outputs()
    if len(entries) != 1 or entries[0].type != "tensor(float)" or len(exits) < 1:
        raise SpecError(f"{path} takes {[one.type for one in entries]}: allowed is one input of tensor(float)")

    def run(x: Tensor) -> Tensor:
        rows = np.ascontiguousarray(x.detach().numpy(), dtype=np.float32)
        return torch.from_numpy(np.asarray(session.run([exits[0].name], {entries[0].name: rows})[0]))

    return run


def _alarm(pinned: Pinned, model: Model, place: int) -> Alarm:
    part = pinned.bundle.detectors[place]
    detector = make_detector(part.spec, f"detectors.{place}.spec")
    if not isinstance(detector, Keepable):
        raise SpecError(f"detectors.{place} = {part.label!r} cannot be kept in a bundle")
    state = {} if part.state is None else load_file(pinned.file(part.state))
    blank = torch.zeros(1, *pinned.bundle.input.shape)
    try:
        alarm = detector.restored(model, state, blank)
    except (Incompatible, KeyError, RuntimeError) as error:
        raise SpecError(f"detectors.{place} = {part.label!r} cannot be had back: {error}") from None
    return Alarm(name=part.label, score=alarm.score, smooth=alarm.smooth)


def _clean(pinned: Pinned) -> NDArray[np.float64]:
    part, count = pinned.bundle.calibration, len(pinned.bundle.detectors)
    if part is None:
        if count:
            raise SpecError("calibration is missing: detectors need clean scores, which their thresholds come from")
        return np.zeros((0, 0))
    scores = load_file(pinned.file(part.scores))["scores"].double().numpy()
    if scores.shape != (part.rows, count):
        raise SpecError(f"calibration holds scores {scores.shape}: allowed is {(part.rows, count)}")
    return np.asarray(scores, dtype=np.float64)
