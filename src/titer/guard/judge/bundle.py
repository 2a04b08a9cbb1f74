"""A bundle: a model with its detectors and their thresholds, in one folder, every file named by its digest.

`bundle.json` says what the input is, how a file becomes it, which network stands behind which weights, and what the
detectors learned; weights and learned tensors are safetensors files, or one ONNX graph. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titer.core.errors import SpecError

MANIFEST = "bundle.json"
FORMAT: Final = 1

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name without folders: nothing outside the bundle is ever read."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Limits = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredFile(_Part):
    """A file of the bundle with its SHA-256."""

    file: FileName
    sha256: Digest


class InputPart(_Part):
    """What the model takes: `shape` of one row in raw `unit`, every value within `value_range`.

    `window` says which values of a DICOM image (after its rescale) become the ends of the range: two numbers, or
    `stored` for all that its bits can hold, or `image` for the image's own 0.5th and 99.5th percentile.
    """

    kind: Literal["image", "ecg", "expression", "notes"]
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, max_length=4)
    unit: str = ""
    value_range: Limits | None = None
    window: Limits | Literal["stored", "image"] = "stored"


class Moments(_Part):
    """Mean and standard deviation in raw values, one a channel or feature."""

    mean: tuple[float, ...]
    sd: tuple[Annotated[float, Field(gt=0)], ...]


class ModelPart(_Part):
    """The model's file; `network` is a registered network's spec, None for ONNX.

    `preprocess` maps raw values to the network's: none, (x - low) / (high - low), or by moments.
    """

    format: Literal["safetensors", "onnx"]
    weights: StoredFile
    network: str | dict[str, Any] | None = None
    preprocess: Literal["none"] | tuple[Literal["unit"], float, float] | Moments = "none"
    returns: Literal["logits", "probabilities"] = "logits"


class DetectorPart(_Part):
    """A detector: its spec, and what it learned; no file where it learned nothing."""

    label: str
    spec: str | dict[str, Any]
    state: StoredFile | None = None


class CalibrationPart(_Part):
    """Scores of clean rows that neither model nor detectors were trained on, [N, D] in a file: thresholds come of them.

    `rate` is the share of clean inputs that the detectors together may hold back.
    """

    rate: float = Field(gt=0, lt=1)
    rows: int = Field(ge=1)
    data: Digest
    scores: StoredFile


class Bundle(_Part):
    """All of `bundle.json`; `digest` is the manifest's own SHA-256, through which all files are pinned."""

    format: Literal[1]
    name: str
    version: str = Field(min_length=1, max_length=32)
    title: str
    input: InputPart
    output: Literal["classes", "labels"]
    classes: tuple[str, ...] = Field(min_length=1)
    model: ModelPart
    detectors: tuple[DetectorPart, ...] = ()
    calibration: CalibrationPart | None = None


class Pinned(_Part):
    """A bundle that was read: what a verdict is bound to (G4)."""

    bundle: Bundle
    folder: Path
    digest: Digest

    @property
    def version(self) -> str:
        """The version, with the digest of everything that belongs to it."""
        return f"{self.bundle.version}+{self.digest[:16]}"

    @property
    def model_digest(self) -> str:
        """The SHA-256 of the model's file."""
        return self.bundle.model.weights.sha256

    def file(self, stored: StoredFile) -> Path:
        """Return the path of a file of the bundle."""
        return self.folder / stored.file


def read_bundle(folder: Path) -> Pinned:
    """Read a bundle and check the digest of every file.

    Raises:
        SpecError: no bundle, settings that are not allowed, a file that is missing or not the one that was pinned.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    try:
        bundle = Bundle.model_validate_json(content)
    except ValidationError as error:
        raise SpecError(f"{path}: " + "; ".join(_said(one) for one in error.errors())) from None
    for stored in _files(bundle):
        _check(folder / stored.file, stored.sha256)
    return Pinned(bundle=bundle, folder=folder, digest=hashlib.sha256(content).hexdigest())


def write_manifest(folder: Path, bundle: Bundle) -> None:
    """Write `bundle.json`, last of all files: a folder without it is no bundle."""
    partial = folder / f".{MANIFEST}.part"
    partial.write_text(json.dumps(bundle.model_dump(mode="json"), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def stored(path: Path) -> StoredFile:
    """Return a file's name with its digest."""
    return StoredFile(file=path.name, sha256=_sha256(path))


def _files(bundle: Bundle) -> list[StoredFile]:
    states = [one.state for one in bundle.detectors if one.state is not None]
    return [bundle.model.weights, *states, *([bundle.calibration.scores] if bundle.calibration else [])]


def _check(path: Path, expected: str) -> None:
    try:
        found = _sha256(path)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    if found != expected:
        raise SpecError(f"{path} is not the file that was pinned: its SHA-256 is {found}, allowed is {expected}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _said(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}"
