"""Clean and adversarial pairs of a simulated run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from tests.report.simulate import Scene, label_of


def write_examples(folder: Path, scene: Scene, outcomes: pd.DataFrame) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    family, norm, eps, unit = scene.threats[2] if len(scene.threats) > 2 else scene.threats[-1]
    threat = label_of(family, eps, unit)
    for place, defense in enumerate(scene.hold):
        rows = outcomes[(outcomes["trial"] == 0) & (outcomes["defense"] == defense) & (outcomes["source"] == defense)]
        rows = rows[(rows["threat"] == threat) & (rows["attack"] == "pgd")].head(4)
        clean, change = _pairs(scene, len(rows), eps, rng, colour=place == 1)
        meta = {"model": "small-cnn", "defense": defense, "source": defense, "attack": "pgd", "threat": threat}
        meta |= {
            "threat_family": family,
            "norm": norm,
            "eps": eps,
            "unit": unit,
            "kind": scene.kind,
            "channels_first": True,
        }
        meta |= {"value_range": [0, 255] if scene.kind == "image" else None, "class_names": list(scene.classes)}
        names = None if scene.kind == "image" else ["TSH", "T3", "TT4", "T4U", "FTI", "age", "a", "b", "c", "d"]
        meta |= {"feature_names": names, "feature_units": None if names is None else ["mIU/L", *[""] * 9]}
        if scene.name == "thyroid":
            meta["feature_scale"] = [2.0, 0.5, 30.0, 0.2, 30.0, 15.0, 1.0, 1.0, 1.0, 0.0]
        np.savez(
            folder / f"{place:012x}.npz",
            clean=clean.astype(np.float32),
            adversarial=(clean + change).astype(np.float32),
            label=rows["label"].to_numpy(dtype=np.int64),
            clean_prediction=rows["clean_prediction"].to_numpy(dtype=np.int64),
            adversarial_prediction=rows["adversarial_prediction"].to_numpy(dtype=np.int64),
            sample_id=rows["sample_id"].to_numpy(dtype=str),
            meta=np.array(json.dumps(meta)),
        )


def _pairs(
    scene: Scene, n: int, eps: float, rng: np.random.Generator, *, colour: bool
) -> tuple[np.ndarray, np.ndarray]:
    if scene.kind != "image":
        clean = np.abs(rng.normal(5, 2, (n, 10)))
        return clean, rng.choice([-1, 0, 1], (n, 10)) * eps
    y, x = np.mgrid[0:28, 0:28] / 27.0
    lungs = np.exp(-((x - 0.3) ** 2 + (y - 0.5) ** 2) * 22) + np.exp(-((x - 0.7) ** 2 + (y - 0.5) ** 2) * 22)
    picture = np.clip(200 - 150 * lungs + rng.normal(0, 6, (n, 3 if colour else 1, 28, 28)), 0, 255)
    return picture, np.clip(picture + rng.choice([-1, 1], picture.shape) * eps, 0, 255) - picture
