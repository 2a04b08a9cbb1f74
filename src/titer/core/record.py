"""Clinical data as the machines pass it around: samples, splits, data sets, and how a network is trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from titer.core.outputs import Output
    from titer.core.threat import Region

Kind = Literal["image", "table", "signal", "expression", "methylation", "variants", "text"]
"""What a row is to those who read the report: it decides how examples are drawn and what its values are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Rows of clinical data: `x` [N, ...] float32 in raw units, `y`, and who each row is of.

    `y` is int64[N] of classes, int64[N, L] of findings (0 or 1), float32[N] of a value, or int64[N, H, W] of a mask.
    `groups` maps a subgroup column (`sex`, `age_band`, `site`) to N values; `unknown` where the value is missing.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray | list[int]) -> Samples:
        """Return the rows with these indices, in this order."""
        index = [int(row) for row in rows]
        return Samples(
            x=self.x[index],
            y=self.y[index],
            ids=tuple(self.ids[i] for i in index),
            patients=tuple(self.patients[i] for i in index),
            groups={name: tuple(values[i] for i in index) for name, values in self.groups.items()},
        )

    def to(self, device: str) -> Samples:
        """Return the samples with their tensors on `device`."""
        return Samples(
            x=self.x.to(device), y=self.y.to(device), ids=self.ids, patients=self.patients, groups=self.groups
        )

    def digest(self) -> str:
        """Return the sha256 of values, labels and identities."""
        sha = hashlib.sha256(str(tuple(self.x.shape)).encode())
        sha.update(self.x.detach().cpu().contiguous().numpy().tobytes())
        sha.update(self.y.detach().cpu().contiguous().numpy().tobytes())
        sha.update("\x1f".join((*self.ids, "\x1e", *self.patients)).encode())
        for name, values in sorted(self.groups.items()):
            sha.update("\x1f".join((name, *values)).encode())
        return sha.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """Digests of the samples as they were when somebody signed them: the file's `text`, and the public `key` to trust.

    `key` are the 32 bytes of an Ed25519 public key (RFC 8032), which comes from elsewhere than the file.
    """

    text: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The three parts of one trial; no patient stands in two of them."""

    train: Samples
    validation: Samples
    test: Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ClinicalData:
    """A data set with everything its threats and its report need.

    `fixed` holds the parts that the data set itself names (`train`, `validation`, `test`); `pool` the rows that each
    trial splits anew by patient. `units` maps a unit's name to the size of one unit in raw values: a number, or
    `sd` for the standard deviation of each feature over the training part. `domain` are the rules that always hold.

    `rules` are further ones, by the names that a threat may ask for. `written` turns one row of `x` into what a
    specialist reads (words of a note, records of a file), as JSON; `drawing` holds what else a drawing of a row needs
    (a sampling rate, names of leads), as JSON. `lexicon` holds the words of notes, whose rows are ids into it.

    `classes` names the classes, the findings, the one value, or a mask's classes with the background first, as
    `output` says. `tolerance` is the largest error of a value that does no harm, in the value's own unit.
    """

    name: str
    title: str
    kind: Kind
    source: str
    licence: str
    classes: tuple[str, ...]
    positive: int | None
    pool: Samples | None
    fixed: Mapping[str, Samples]
    domain: tuple[Region, ...]
    units: Mapping[str, float | Literal["sd"]]
    value_range: tuple[float, float] | None = None
    feature_names: tuple[str, ...] | None = None
    feature_units: tuple[str, ...] | None = None
    test_share: float = 0.3
    validation_share: float = 0.15
    output: Output = "classes"
    tolerance: float | None = None
    rules: Mapping[str, Region] = field(default_factory=dict)
    written: Callable[[Tensor], Any] | None = None
    drawing: Mapping[str, Any] = field(default_factory=dict)
    lexicon: tuple[str, ...] | None = None

    def parts(self) -> Mapping[str, Samples]:
        """Return every part under its name, the pool included."""
        return dict(self.fixed) | ({} if self.pool is None else {"pool": self.pool})

    def digest(self) -> str:
        """Return the sha256 over all parts, the classes and the rules."""
        sha = hashlib.sha256(repr((self.name, self.classes, self.positive)).encode())
        if self.output != "classes":
            sha.update(repr((self.output, self.tolerance)).encode())
        sha.update(repr([rule.describe() for rule in self.domain]).encode())
        if self.lexicon is not None:
            sha.update("\x1f".join(self.lexicon).encode())
        for name, part in sorted(self.parts().items()):
            sha.update(f"{name}:{part.digest()}".encode())
        return sha.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained: AdamW with a one-cycle rate, stopped early on the validation part.

    `precision` is lightning-fabric's; `bf16-mixed` is 2 to 3 times faster on CPUs with AVX-512 bf16.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    patience: Annotated[int, Field(ge=1)] = 8
    class_weights: Literal["balanced", "none"] = "none"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
