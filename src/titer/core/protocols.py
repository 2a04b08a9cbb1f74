"""What each kind of plugin is: protocols of one method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from titer.core.model import Model
    from titer.core.outputs import Output
    from titer.core.record import ClinicalData, Recipe, Samples, SignedManifest
    from titer.core.threat import Logits, Region, Threat

Progress = Callable[[str, float], None]
"""Called with what is running and the share of it that is done, 0 to 1."""


def silent(_text: str, _done: float) -> None:
    """Take a progress message and show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """All a defence may see: the training and validation parts, the domain's rules, and how to train.

    `units` are sizes of one unit for each name, resolved on the training part: [] or shaped as one row of `x`.
    `classes` counts what a network returns a logit for: classes, findings, or 1 for a value, as `output` says.
    `costs` are what a mistake costs in each class (a missed finding, of findings); they stand before the recipe's
    `class_weights`. `manifest` was signed when the training part was collected, None where nobody did.
    """

    train: Samples
    validation: Samples
    classes: int
    domain: tuple[Region, ...]
    units: Mapping[str, Tensor]
    recipe: Recipe
    value_range: tuple[float, float] | None = None
    device: str = "cpu"
    cache: Path | None = None
    progress: Progress = field(default=silent)
    output: Output = "classes"
    costs: tuple[float, ...] | None = None
    manifest: SignedManifest | None = None


class Attack(Protocol):
    """An evasion attack: proposes one input for every row; the harness judges."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        """Return proposals shaped as `x` [N, ...]; `y` is in the form of the model's output.

        Raises:
            Incompatible: the attack cannot run on this model or threat.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned:
    """A training part after an attack on it, with what was done.

    `samples` is the poisoned training part and `changed` marks bool[N] its rows that are not as they were (added ones
    too). What the attacker wants of a model trained on it is the answer `target`: for inputs with the `trigger` on
    them (from raw inputs [N, ...] to the same), for the `aimed` inputs, or for inputs as they are. `source` is the one
    class that this is for, None for every other class. All are None where any error will do.
    """

    samples: Samples
    changed: Tensor
    trigger: Callable[[Tensor], Tensor] | None = None
    aimed: Samples | None = None
    target: int | None = None
    source: int | None = None


class Poison(Protocol):
    """An attack on the training set: training data in, a poisoned training part out, with the list of what changed."""

    def __call__(self, model: Model, train: TrainingData, *, rng: Generator) -> Poisoned:
        """Return the poisoned training part; `model` is what the attacker knows: an untrained network, or a surrogate.

        Raises:
            Incompatible: it cannot be done to this data or model.
        """
        ...


class Cleaner(Protocol):
    """A search for poisoned rows in a training part, with a model that was trained on it."""

    def __call__(self, model: Model, train: TrainingData, *, rng: Generator) -> Tensor:
        """Return float[N], one score for each row of the training part: the larger, the more suspicious.

        A row that is surely not as it was has the score infinity.

        Raises:
            Incompatible: it cannot work on this model or data.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampered:
    """Files after an attack on them: `files` by name, and one sentence for each thing that was `changed`."""

    files: Mapping[str, bytes]
    changed: tuple[str, ...]


class Tamper(Protocol):
    """An attack on files: valid files in, tampered ones out that are valid too."""

    def __call__(self, files: Mapping[str, bytes], *, rng: Generator) -> Tampered:
        """Return the files by name, tampered; the argument is not changed.

        Raises:
            Incompatible: these files hold nothing of what it changes.
        """
        ...


class Defense(Protocol):
    """A defence: trains or wraps a model; never changes its argument."""

    def __call__(self, model: Model, train: TrainingData, *, rng: Generator) -> Model:
        """Return the defended model.

        Raises:
            Incompatible: the defence cannot work on this model or data.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What is proven of each row: `prediction` int64[N], -1 where it abstains, holds within `radius` float[N].

    The radius is in the threat's own norm and unit, 0 where nothing is proven; `confidence` is 1 for a proof, and less
    where it rests on sampling.
    """

    prediction: Tensor
    radius: Tensor
    confidence: float = 1.0


class Certifier(Protocol):
    """A certifier: proves that no input of a ball around a row changes the prediction."""

    def __call__(self, model: Model, x: Tensor, threat: Threat, *, rng: Generator) -> Certificates:
        """Return for each row of x [N, ...] the largest radius proven, at most the threat's eps where that is finite.

        Raises:
            Incompatible: the model or the threat is none that it can bound; the reason names the layer, and what it
                supports.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A fitted detector: `score` from raw inputs [N, ...] to float[N], the larger the more suspicious.

    `smooth` is a differentiable stand-in for an attacker who knows the detector and lowers its score: None where the
    score is differentiable itself (then `score` is used). Neither changes the model. `state` is all that was learned
    from the clean data, so that the alarm can be kept in a file (`engine.alarm.Keepable`); None where it cannot.
    """

    name: str
    score: Logits
    smooth: Logits | None = None
    state: Mapping[str, Tensor] | None = None


class Detector(Protocol):
    """A detector of adversarial or shifted inputs, fitted on clean data of a model."""

    def __call__(self, model: Model, train: TrainingData, *, rng: Generator) -> Alarm:
        """Return the detector fitted on the training part; thresholds are set elsewhere, on the validation part.

        Raises:
            Incompatible: it cannot work on this model or data.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What a look at one batch of a stream found: drifted where `p_value` is at most `level`, this look's own share.

    `statistic` is the distance of the two samples, in the test's own unit.
    """

    p_value: float
    level: float
    statistic: float

    @property
    def drifted(self) -> bool:
        """Whether the batch is of another population, at the level that repeated looks leave."""
        return self.p_value <= self.level


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAlarm:
    """A fitted watch over a stream: `look` takes a batch of raw inputs [n, ...] and how many were looked at before."""

    name: str
    look: Callable[[Tensor, int], Drift]


class StreamDetector(Protocol):
    """A detector that looks at batches of a stream and not at single inputs, fitted on clean data of a model."""

    def __call__(self, model: Model, train: TrainingData, *, rng: Generator) -> StreamAlarm:
        """Return the watch, with the validation part as what the stream should look like.

        Raises:
            Incompatible: it cannot work on this model or data.
        """
        ...


class Explainer(Protocol):
    """An explainer: how much each value of an input speaks for a class."""

    def __call__(self, model: Model, x: Tensor, target: Tensor, *, rng: Generator) -> Tensor:
        """Return attributions shaped as x [N, ...] for the classes target int64[N]; positive speaks for the class.

        Raises:
            Incompatible: the model gives what it needs to nobody (gradients, a convolution).
        """
        ...


class Modality(Protocol):
    """A loader of clinical data."""

    def __call__(self) -> ClinicalData:
        """Return the data, checked; raise SpecError naming everything that is wrong with it."""
        ...


class Network(Protocol):
    """A reference architecture."""

    def __call__(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network for rows of `shape` with `classes` logits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained model that is no network: `logits` of raw rows [N, ...], without a gradient.

    `digest` is the sha256 of what was learned. `state` is what it can be had back from without another fit, in a format
    that nothing is unpickled of; None where a fit is as cheap.
    """

    logits: Logits
    digest: str
    state: bytes | None = None


class Estimator(Protocol):
    """A model that is no network: trees, a scikit-learn classifier."""

    def __call__(self, train: TrainingData, *, rng: Generator, kept: bytes | None = None) -> Fitted:
        """Return the model fitted on the training part, or the one whose `state` was `kept`."""
        ...
