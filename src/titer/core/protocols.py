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
    from titer.core.record import ClinicalData, Recipe, Samples
    from titer.core.threat import Region, Threat

Progress = Callable[[str, float], None]
"""Called with what is running and the share of it that is done, 0 to 1."""


def silent(_text: str, _done: float) -> None:
    """Take a progress message and show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """All a defence may see: the training and validation parts, the domain's rules, and how to train.

    `units` are sizes of one unit for each name, resolved on the training part: [] or shaped as one row of `x`.
    `classes` counts what a network returns a logit for: classes, findings, or 1 for a value, as `output` says.
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


class Attack(Protocol):
    """An evasion attack: proposes one input for every row; the harness judges."""

    def __call__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        """Return proposals shaped as `x` [N, ...]; `y` is in the form of the model's output.

        Raises:
            Incompatible: the attack cannot run on this model or threat.
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
