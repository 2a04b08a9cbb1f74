"""Bundles are made here: a trained network and fitted detectors, written so that they can be had back and pinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_detector
from titer.core.protocols import Alarm, TrainingData
from titer.core.randomness import generator
from titer.core.registry import Spec, parse
from titer.engine.features import in_parts
from titer.engine.one_pass import sharing
from titer.engine.watching import scores
from titer.guard.judge.bundle import (
    FORMAT,
    Bundle,
    CalibrationPart,
    DetectorPart,
    InputPart,
    ModelPart,
    Moments,
    Pinned,
    StoredFile,
    read_bundle,
    stored,
    write_manifest,
)
from titer.guard.judge.models import load
from titer.stats.alarms import thresholds
from titer.training.weights import save

DETECTORS: tuple[Spec, ...] = ("low-confidence", "shift")
"""What a bundle has by default: both look at the pass that answers, so that a verdict costs next to no more."""
_TOLERANCE = 1e-4
_PROBED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a bundle says of itself; `network` and `preprocess` are how the model was made (see `ModelPart`)."""

    name: str
    version: str
    title: str
    classes: tuple[str, ...]
    input: InputPart
    network: str | dict[str, Any]
    preprocess: Literal["none"] | tuple[Literal["unit"], float, float] | Moments = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A bundle that was written; `refused` says of detectors that are not in it why."""

    pinned: Pinned
    refused: Mapping[str, str]


def build(
    folder: Path,
    about: Description,
    model: Model,
    data: TrainingData,
    *,
    detectors: Sequence[Spec] = DETECTORS,
    rate: float = 0.05,
    seed: int = 0,
) -> Built:
    """Write a bundle of a trained model, with detectors fitted on the training part.

    Thresholds are set on the validation part: together the detectors hold back at most `rate` of clean inputs. What was
    written is read back and must answer as the model did.

    Args:
        folder: a new folder.
        about: name, version, input and network.
        model: the trained model; its network's weights are written.
        data: training and validation part, in raw units.
        detectors: specs; one that keeps nothing which could be saved is refused, with the reason.
        rate: the false-positive rate, more than 0 and less than 1.
        seed: of what the detectors draw.

    Raises:
        SpecError: the folder is not empty, the model is no plain network, or the bundle answers otherwise.
        Incompatible: too few validation rows for the rate.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(f"folder = {str(folder)!r} is not empty: a bundle needs a new one")
    if model.net is None or model.draw is not None or model.output not in ("classes", "labels"):
        raise SpecError(f"{model.name} is no network of classes or findings whose weights could be written")
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "model.safetensors", model.net.state_dict(), {})
    alarms, refused = _fitted(model, data, detectors, seed)
    bundle = Bundle(
        format=FORMAT,
        name=about.name,
        version=about.version,
        title=about.title,
        input=about.input,
        output=model.output,
        classes=about.classes,
        model=ModelPart(
            format="safetensors",
            weights=stored(folder / "model.safetensors"),
            network=about.network,
            preprocess=about.preprocess,
        ),
        detectors=tuple(_written(folder, place, one, spec) for place, (one, spec) in enumerate(alarms)),
        calibration=_calibrated(folder, [one for one, _ in alarms], data, rate),
    )
    write_manifest(folder, bundle)
    _check(folder, model, [one for one, _ in alarms], data.validation.x[:_PROBED])
    return Built(pinned=read_bundle(folder), refused=refused)


def _fitted(
    model: Model, data: TrainingData, specs: Sequence[Spec], seed: int
) -> tuple[list[tuple[Alarm, Spec]], dict[str, str]]:
    """Return the detectors that work on this model and can be kept, and of the others why not."""
    found: list[tuple[Alarm, Spec]] = []
    refused: dict[str, str] = {}
    for place, spec in enumerate(specs):
        name, _ = parse(spec, f"detectors.{place}")
        try:
            alarm = make_detector(spec, f"detectors.{place}")(sharing(model), data, rng=generator(seed, name, place))
        except Incompatible as reason:
            refused[name] = str(reason)
            continue
        if alarm.state is None:
            refused[name] = f"{name} keeps nothing that could be saved"
        else:
            found.append((alarm, spec))
    return found, refused


def _written(folder: Path, place: int, alarm: Alarm, spec: Spec) -> DetectorPart:
    assert alarm.state is not None
    state: StoredFile | None = None
    if alarm.state:
        path = folder / f"detector-{place}-{alarm.name}.safetensors"
        save(path, alarm.state, {})
        state = stored(path)
    return DetectorPart(label=alarm.name, spec=spec if isinstance(spec, str) else dict(spec), state=state)


def _calibrated(folder: Path, alarms: Sequence[Alarm], data: TrainingData, rate: float) -> CalibrationPart | None:
    if not alarms:
        return None
    seen = scores(alarms, data.validation.x)
    thresholds(seen, rate)  # refuses too few rows now, and not when the first study comes
    save(folder / "calibration.safetensors", {"scores": torch.from_numpy(seen)}, {})
    return CalibrationPart(
        rate=rate,
        rows=len(seen),
        data=data.validation.digest(),
        scores=stored(folder / "calibration.safetensors"),
    )


def _check(folder: Path, model: Model, alarms: Sequence[Alarm], rows: Tensor) -> None:
    """Refuse a bundle that does not answer as the model did: `network` or `preprocess` is then not what was trained."""
    again = load(folder)
    own, other = in_parts(model.logits, rows), in_parts(again.model.logits, rows)
    if own.shape != other.shape or not torch.allclose(own, other, atol=_TOLERANCE, rtol=_TOLERANCE):
        raise SpecError("preprocess or network is not that of the model: the bundle answers otherwise than it does")
    for one, kept in zip(alarms, again.alarms, strict=True):
        if not torch.allclose(one.score(rows), kept.score(rows), atol=1e-3, rtol=1e-3):
            raise SpecError(f"detector {one.name} says otherwise once it is had back")
