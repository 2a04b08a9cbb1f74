"""Read the explained pairs that a run keeps for the report: inputs and attributions, before and under attack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from titer.core.errors import SpecError
from titer.report.examples import read_archive

Floats = npt.NDArray[np.float32]
_SHAPED = ("clean", "adversarial", "clean_saliency", "adversarial_saliency", "other_saliency")
_ARRAYS = (*_SHAPED, "clean_prediction", "adversarial_prediction", "label", "sample_id", "meta")
_META = ("model", "defense", "family", "explainer", "title", "kind", "class_names")


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one explainer on one defended model under one threat.

    Attributes:
        clean: [n, ...], raw units; `adversarial` likewise.
        adversarial: under attack.
        clean_saliency: [n, ...], what speaks for the decision on the clean input.
        adversarial_saliency: [n, ...], what speaks for the decision under attack.
        other_saliency: [n, ...], what in the clean input speaks for the decision under attack.
        clean_prediction: [n]; `adversarial_prediction` and `label` likewise.
        adversarial_prediction: under attack.
        label: the true class.
        sample_id: n ids of test rows.
        meta: whose they are, and the names of features and classes.
    """

    clean: Floats
    adversarial: Floats
    clean_saliency: Floats
    adversarial_saliency: Floats
    other_saliency: Floats
    clean_prediction: npt.NDArray[np.int64]
    adversarial_prediction: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    sample_id: tuple[str, ...]
    meta: dict[str, Any]


def read_pairs(path: Path) -> Pairs:
    """Read one `explanation/examples/<part>.npz`, never unpickling anything.

    Raises:
        SpecError: the file is damaged, lacks an array or a key of `meta`, or its shapes do not agree.
    """
    arrays, meta = read_archive(path, _ARRAYS, _META)
    shapes = {arrays[name].shape for name in _SHAPED}
    if len(shapes) > 1 or {len(arrays[name]) for name in _ARRAYS[:-1]} != {len(arrays["clean"])}:
        raise SpecError(f"{path}: inputs and attributions have shapes {sorted(shapes)}: allowed is one for all")
    return Pairs(
        **{name: arrays[name].astype(np.float32) for name in _SHAPED},
        **{name: arrays[name].astype(np.int64) for name in ("clean_prediction", "adversarial_prediction", "label")},
        sample_id=tuple(map(str, arrays["sample_id"])),
        meta=meta,
    )
