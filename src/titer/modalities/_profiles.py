"""From files to clinical data: what profiles of expression and of methylation share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from titer.core.errors import SpecError
from titer.core.record import ClinicalData, Kind
from titer.core.threat import Region
from titer.modalities._checks import check_classes, checked, listed, positive_class
from titer.modalities._cohort import Cohort, Reading, cohort, drawing, seen_range
from titer.modalities._matrix import Wanted, named, read_matrix
from titer.threats.rules import MutableMask

_RANGE_RULE = "cohort-range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The matrices of a study, `file` and maybe `test_file`, with what of them is no measurement."""

    file: Path
    test_file: str | None
    patient: str | None
    ignore: tuple[str, ...]
    layer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a report says of a study, and its shares of test and validation patients."""

    name: str
    title: str
    source: str
    licence: str
    positive: str | None
    test_share: float
    validation_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What each feature of a profile is (`gene`), the unit of its values, their units of a budget, and their rules.

    `blocks` are the modalities of one patient side by side: name to the beginning of its features' names.
    """

    what: str
    value: str
    units: Mapping[str, float | Literal["sd"]]
    domain: tuple[Region, ...]
    kind: Kind = "expression"
    value_range: tuple[float, float] | None = None
    blocks: Mapping[str, str] = field(default_factory=dict)


def check_own(
    file: str | None, own: Mapping[str, object], classes: tuple[str, ...] | None, positive: str | None
) -> None:
    """Refuse settings of the user's own data (`own`, `classes`) where there is no `file`, and wrong class names."""
    if positive is not None:
        check_classes(classes, positive)
    if file is None and (classes is not None or any(value is not None for value in own.values())):
        names = ", ".join(own)
        raise SpecError(f"data.{names} and classes are not allowed without data.file: they describe your own")


def read_study(files: Files, reading: Reading) -> Cohort:
    """Return the study in these files.

    Raises:
        SpecError: what `read_matrix` and `cohort` refuse.
    """
    wanted = Wanted(needed=named((reading.label, files.patient)), ignored=files.ignore, layer=files.layer)
    matrix = read_matrix(files.file, wanted, "data.file")
    test = None if files.test_file is None else read_matrix(Path(files.test_file), wanted, "data.test_file")
    return cohort(matrix, test, reading)


def clinical(whole: Cohort, about: About, measured: Measured) -> ClinicalData:
    """Return the study as clinical data, checked, with the rules that a threat may ask for by name."""
    return checked(
        ClinicalData(
            name=about.name,
            title=about.title,
            kind=measured.kind,
            source=about.source,
            licence=about.licence,
            classes=whole.classes,
            positive=positive_class(about.positive, whole.classes),
            pool=whole.pool,
            fixed=whole.fixed,
            domain=measured.domain,
            units=measured.units,
            value_range=measured.value_range,
            feature_names=whole.features,
            feature_units=(measured.value,) * len(whole.features),
            test_share=about.test_share,
            validation_share=about.validation_share,
            rules={
                _RANGE_RULE: seen_range(whole.every(), measured.what),
                **block_rules(whole.features, measured.blocks),
            },
            drawing=drawing(whole.shown, whole.classes, measured.what, measured.value),
        )
    )


def block_rules(features: tuple[str, ...], blocks: Mapping[str, str]) -> dict[str, Region]:
    """Return for each block, name to the beginning of its features' names, the rule that nothing else may change.

    Raises:
        SpecError: a block has the name of another rule or no feature, or a feature stands in two blocks.
    """
    rules: dict[str, Region] = {}
    owner: dict[str, str] = {}
    for name, prefix in blocks.items():
        own = [one for one in features if one.startswith(prefix)]
        twice = [one for one in own if one in owner]
        if not name or name == _RANGE_RULE or not own or twice:
            raise SpecError(f"data.blocks.{name} = {prefix!r} is not allowed: {_why(name, own, twice, owner)}")
        owner |= dict.fromkeys(own, name)
        mask = torch.tensor([one.startswith(prefix) for one in features])
        rules[name] = MutableMask(mask=mask, text=f"only the {len(own)} values of {name} ({prefix}...) may change")
    return rules


def _why(name: str, own: list[str], twice: list[str], owner: Mapping[str, str]) -> str:
    if not own:
        return "no column's name begins so"
    if twice:
        return f"{listed(twice)} would stand in {owner[twice[0]]} as well; each column in one block at most"
    return f"{name!r} is the name of another rule"
