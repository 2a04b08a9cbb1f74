"""One explainer on the rows that an attack flipped: how far its answers move, and a few of them as arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from titer.assess.explained_rows import Attempt, Flips
from titer.assess.trial import Defended, Trial
from titer.assess.views import View
from titer.core.model import Model
from titer.core.protocols import Explainer
from titer.core.randomness import generator
from titer.engine.saliency import cosine, share_inside, top_overlap

MOST_ROWS = 40
"""Rows explained at most: LIME and the kernel of SHAP take them one by one."""

_FEWEST_ROWS = 4
_WORK = {"cpu": 2e11, "cuda": 2e13}
_EXAMPLES = 4
_NAMES = ("clean", "new", "other", "first", "noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanations:
    """Attributions [n, ...] of the first n flipped rows.

    `clean` of the clean input for its decision, `new` of the attacked one for its own, and `other` of the clean one for
    that new decision; `first` and `noise` of the attacked and of the noisy input for the clean input's decision.
    """

    clean: Tensor
    new: Tensor
    other: Tensor
    first: Tensor
    noise: Tensor


def affordable(explain: Explainer, model: Model, flips: Flips, *, seed: int, device: str) -> int:
    """Return how many flipped rows are explained: by the arithmetic of one, counted, so that it repeats exactly.

    A clock would give another table on another day. Two hundred thousand million operations are some ten seconds of
    one CPU; a remote model, which is asked and not computed, is asked about the fewest.
    """
    from torch.utils.flop_counter import FlopCounterMode

    if model.provenance.get("remote"):
        return min(_FEWEST_ROWS, len(flips.index))
    if not len(flips.index):
        return 0
    with FlopCounterMode(display=False) as counter:
        explain(model, flips.clean[:1], flips.first[:1], rng=generator(seed, "explained"))
    one = max(1, len(_NAMES) * counter.get_total_flops())
    return min(len(flips.index), MOST_ROWS, max(_FEWEST_ROWS, int(_WORK.get(device, _WORK["cpu"]) // one)))


def explanations(explain: Explainer, model: Model, flips: Flips, count: int, *, seed: int) -> Explanations:
    """Explain the first `count` flipped rows five times, each time with the same random numbers."""
    asked = {
        "clean": (flips.clean, flips.first),
        "new": (flips.attacked, flips.new),
        "other": (flips.clean, flips.new),
        "first": (flips.attacked, flips.first),
        "noise": (flips.noisy, flips.first),
    }
    found = {
        name: explain(model, x[:count], target[:count], rng=generator(seed, "explained"))
        for name, (x, target) in asked.items()
    }
    return Explanations(**found)


def measures(found: Explanations, lesions: Tensor | None) -> dict[str, np.ndarray]:
    """Return float64[n] each: cosine and top-10 % overlap with the clean explanation, and the share in the lesion.

    `lesions` bool[n, ...] are masks of the images; without them, and in rows without a lesion, the share is NaN.
    """
    columns: dict[str, Tensor] = {}
    for name in _NAMES[1:]:
        moved = getattr(found, name)
        columns[f"cosine_{name}"] = cosine(found.clean, moved)
        columns[f"overlap_{name}"] = top_overlap(found.clean, moved)
    for name in _NAMES:
        columns[f"inside_{name}"] = _inside(getattr(found, name), lesions)
    return {name: value.double().cpu().numpy() for name, value in columns.items()}


def _inside(attribution: Tensor, lesions: Tensor | None) -> Tensor:
    if lesions is None:
        return torch.full((len(attribution),), float("nan"))
    return share_inside(attribution, lesions).masked_fill(~lesions.flatten(1).any(1), float("nan"))


def lesions_of(trial: Trial, attempt: Attempt, flips: Flips, count: int) -> Tensor | None:
    """Return bool[n, ...], the true foreground of the explained rows where the data have masks, else None."""
    return attempt.rows.y[flips.index[:count]] > 0 if trial.data.output == "mask" else None


def row_columns(trial: Trial, attempt: Attempt, index: Tensor) -> dict[str, Any]:
    """Return who and what these studied rows are: ids, label, and the predictions before and under attack."""
    data = trial.data
    view = View(output=data.output, classes=data.classes, tolerance=data.tolerance, goal=attempt.threat.goal)
    y, places = attempt.rows.y, index.tolist()
    return {
        "sample_id": [attempt.rows.ids[i] for i in places],
        "patient_id": [attempt.rows.patients[i] for i in places],
        "label": view.label(y)[index].cpu().numpy().astype(np.int64),
        "clean_prediction": view.prediction(attempt.clean, y)[index].cpu().numpy().astype(np.int64),
        "adversarial_prediction": view.prediction(attempt.result.prediction, y)[index].cpu().numpy().astype(np.int64),
    }


def example_arrays(
    trial: Trial, source: Defended, attempt: Attempt, flips: Flips, found: Explanations, labels: Mapping[str, Any]
) -> dict[str, np.ndarray] | None:
    """Return up to four explained rows with their attributions for the report, None where nothing flipped."""
    rows = flips.index[: min(_EXAMPLES, len(found.clean))]
    if not len(rows):
        return None
    data, count = trial.data, len(rows)
    known = row_columns(trial, attempt, rows)
    names = View(output=data.output, classes=data.classes, tolerance=data.tolerance, goal=attempt.threat.goal).names
    meta = {
        "model": source.model_label,
        "defense": source.label,
        "kind": data.kind,
        "channels_first": True,
        "value_range": data.value_range,
        "feature_names": data.feature_names,
        "class_names": names,
        "output": data.output,
        **labels,
    }
    return {
        "clean": flips.clean[:count].cpu().numpy(),
        "adversarial": flips.attacked[:count].cpu().numpy(),
        "clean_saliency": found.clean[:count].cpu().numpy(),
        "adversarial_saliency": found.new[:count].cpu().numpy(),
        "other_saliency": found.other[:count].cpu().numpy(),
        "label": known["label"],
        "clean_prediction": known["clean_prediction"],
        "adversarial_prediction": known["adversarial_prediction"],
        "sample_id": np.array(known["sample_id"]),
        "meta": np.array(json.dumps(meta)),
    }


def frame(columns: Mapping[str, Any], count: int) -> pd.DataFrame:
    """Return a part's table; every part has the same columns, so that all stand in one file."""
    table = {name: columns.get(name, _filled(kind, count)) for name, kind in _COLUMNS.items()}
    return pd.DataFrame({name: pd.Series(table[name], dtype=_COLUMNS[name]) for name in _COLUMNS})


def _filled(kind: str, count: int) -> np.ndarray:
    nothing: dict[str, Any] = {"object": "", "float64": np.nan, "int64": -1, "bool": False}
    return np.full(count, nothing[kind], dtype=kind)


_COLUMNS = (
    dict.fromkeys(("kind", "family", "threat", "attack", "explainer", "sample_id", "patient_id"), "object")
    | dict.fromkeys(("label", "clean_prediction", "adversarial_prediction"), "int64")
    | dict.fromkeys((f"{one}_{name}" for one in ("cosine", "overlap") for name in _NAMES[1:]), "float64")
    | dict.fromkeys((*(f"inside_{name}" for name in _NAMES), "noise_length"), "float64")
    | {"noise_won": "bool"}
    | dict.fromkeys(("x", "y", "same_class_neighbours"), "float64")
    | dict.fromkeys(("attacked", "flipped"), "bool")
)
