"""Read the clean and adversarial pairs that a run keeps for the report's panels."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from titer.core.errors import SpecError

_ARRAYS = ("clean", "adversarial", "label", "clean_prediction", "adversarial_prediction", "sample_id", "meta")
_META = ("model", "defense", "source", "attack", "threat", "threat_family", "norm", "unit", "kind", "class_names")


@dataclass(frozen=True, slots=True)
class Example:
    """The pairs of one cell.

    Attributes:
        clean: [n, ...], raw units.
        adversarial: [n, ...], raw units.
        label: [n], the true class.
        clean_prediction: [n], the class before the attack.
        adversarial_prediction: [n], the class under attack.
        sample_id: n ids of test rows.
        meta: what the pairs are: model, defence, attack, threat, kind, names of features and classes.
    """

    clean: npt.NDArray[np.float32]
    adversarial: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    clean_prediction: npt.NDArray[np.int64]
    adversarial_prediction: npt.NDArray[np.int64]
    sample_id: tuple[str, ...]
    meta: dict[str, Any]


def read_example(path: Path) -> Example:
    """Read one `examples/<cell>.npz`, never unpickling anything.

    Raises:
        SpecError: the file is damaged, or lacks an array or a key of `meta`.
    """
    arrays, meta = read_archive(path, _ARRAYS, _META)
    if arrays["clean"].shape != arrays["adversarial"].shape:
        raise SpecError(f"{path}: clean is {arrays['clean'].shape}, adversarial {arrays['adversarial'].shape}")
    return Example(
        clean=arrays["clean"].astype(np.float32),
        adversarial=arrays["adversarial"].astype(np.float32),
        label=arrays["label"].astype(np.int64),
        clean_prediction=arrays["clean_prediction"].astype(np.int64),
        adversarial_prediction=arrays["adversarial_prediction"].astype(np.int64),
        sample_id=tuple(map(str, arrays["sample_id"])),
        meta=meta,
    )


def read_archive(path: Path, names: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the arrays `names` of an `.npz` file, and the `keys` of the JSON in its array `meta`; nothing is unpickled.

    Raises:
        SpecError: the file is damaged, or lacks an array or a key.
    """
    try:
        # opened here: NumPy leaves its own handle open where the archive is damaged
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            absent = [name for name in names if name not in file.files]
            if absent:
                raise SpecError(f"{path} lacks the array(s) {', '.join(absent)}: found {', '.join(file.files)}")
            arrays = {name: file[name] for name in names}
        meta = json.loads(str(arrays["meta"].item()))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path} is damaged: {' '.join(str(error).split())[:200]}; expected a NumPy archive") from error
    absent = [key for key in keys if key not in meta]
    if absent:
        raise SpecError(f"{path}: meta lacks {', '.join(absent)}")
    return arrays, meta
