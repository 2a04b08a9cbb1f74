"""Plausible run folders without a model: the outcomes are drawn, the derived tables are counted from them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

KEYS = ["model", "defense", "source", "attack", "threat"]
MINIMAL = ("carlini-wagner", "fmn")
STRENGTH = {"none": 0.0, "fgsm": 0.7, "square": 0.8, "hopskipjump": 0.75, "carlini-wagner": 1.05, "fmn": 1.1}


@dataclass(frozen=True)
class Scene:
    """What to simulate; `hold` is how much of the budget each defence takes away (0: none, 1: all)."""

    name: str
    kind: str
    classes: tuple[str, ...]
    positive: int | None
    hold: dict[str, float]
    titles: dict[str, str]
    threats: tuple[tuple[str, str, float, str], ...]
    attacks: tuple[str, ...]
    trials: int
    n: int
    groups: tuple[str, ...]
    failing: tuple[str, ...] = ()
    title: str = "Simulated assessment"
    newer: bool = False
    goals: dict[str, str] = field(default_factory=dict)
    surrogates: tuple[str, ...] = ()
    output: str = "classes"
    output_unit: str = ""


IMAGE = Scene(
    name="chest",
    title="Pneumonia on chest radiographs (28 × 28)",
    kind="image",
    classes=("normal", "pneumonia"),
    positive=1,
    hold={"none": 0.0, "adversarial-training": 0.75, "jpeg": 0.35, "smoothing": 0.45, "hybrid": 0.8},
    titles={
        "none": "No defence",
        "adversarial-training": "Adversarial training",
        "jpeg": "JPEG compression",
        "smoothing": "Randomized smoothing",
        "hybrid": "Adversarial training + JPEG compression",
    },
    threats=(
        ("linf", "linf", 2, "/255"),
        ("linf", "linf", 4, "/255"),
        ("linf", "linf", 8, "/255"),
        ("l2", "l2", 200, "/255"),
    ),
    attacks=("fgsm", "pgd", "carlini-wagner"),
    trials=5,
    n=60,
    groups=("sex", "age_band"),
    failing=("jpeg",),
)
TABLE = Scene(
    name="thyroid",
    title="Thyroid function from laboratory values",
    kind="table",
    classes=("normal", "hypothyroid", "hyperthyroid"),
    positive=None,
    hold={"none": 0.0, "adversarial-training": 0.6, "distillation": 0.1},
    titles={
        "none": "No defence",
        "adversarial-training": "Adversarial training",
        "distillation": "Defensive distillation",
    },
    threats=(("linf", "linf", 0.1, "SD"), ("linf", "linf", 0.25, "SD")),
    attacks=("pgd", "square"),
    trials=5,
    n=80,
    groups=("site",),
)
SINGLE = Scene(
    name="cytology",
    title="Breast cytology, one trial",
    kind="table",
    classes=("benign", "malignant"),
    positive=1,
    hold={"none": 0.0, "adversarial-training": 0.6},
    titles={"none": "No defence", "adversarial-training": "Adversarial training"},
    threats=(("linf", "linf", 0.25, "SD"),),
    attacks=("pgd",),
    trials=1,
    n=70,
    groups=(),
)


def label_of(family: str, eps: float, unit: str) -> str:
    return f"{family} {eps:g}{unit if unit.startswith('/') else ' ' + unit}"


def simulate_outcomes(scene: Scene) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    frames = []
    for trial in range(scene.trials):
        people = _people(scene, trial, rng)
        for defense, hold in scene.hold.items():
            toughness = rng.gamma(2.0, 0.35, scene.n) / (1 - hold) + 0.02
            right = rng.random(scene.n) < 0.93 - 0.07 * hold
            clean = np.where(right, people["label"], (people["label"] + 1) % len(scene.classes))
            base = people.assign(model="small-cnn", defense=defense, clean_prediction=clean, trial=trial)
            frames.append(_attacked(base, scene, defense, "none", ("none", "none", 0.0, ""), toughness, right, rng))
            pairs = itertools.product(scene.attacks, scene.threats, _sources(scene, defense))
            frames += [_attacked(base, scene, src, a, t, toughness, right, rng) for a, t, src in pairs]
    table = pd.concat(frames, ignore_index=True)
    return table.assign(run="abc", cell="c0ffee", access="gradient", forwards=40.0, backwards=20.0)


def _sources(scene: Scene, defense: str) -> list[str]:
    return [*dict.fromkeys((defense, "none")), *(f"surrogate: {name}" for name in scene.surrogates)]


def _people(scene: Scene, trial: int, rng: np.random.Generator) -> pd.DataFrame:
    ids = [f"{trial}-{index:04d}" for index in range(scene.n)]
    people = pd.DataFrame({"sample_id": ids, "patient_id": ids, "label": rng.integers(0, len(scene.classes), scene.n)})
    values = {"sex": ["female", "male"], "age_band": ["0-17", "18-64", "65+"], "site": ["A", "B"]}
    weights = {"age_band": [0.1, 0.6, 0.3]}
    for name in scene.groups:
        people[f"group:{name}"] = rng.choice(values[name], scene.n, p=weights.get(name))
    return people


def _attacked(
    base: pd.DataFrame,
    scene: Scene,
    source: str,
    attack: str,
    threat: tuple[str, str, float, str],
    toughness: np.ndarray,
    right: np.ndarray,
    rng: np.random.Generator,
) -> pd.DataFrame:
    family, norm, eps, unit = threat
    largest = max(one[2] for one in scene.threats if one[0] == family) if attack != "none" else 1.0
    strength = STRENGTH.get(attack, 1.0)
    if source != base["defense"].iloc[0] and attack != "none":
        strength *= 0.3
    distance = toughness * largest / max(strength, 1e-9) * rng.normal(1, 0.03, len(base))
    won = ~right | (distance <= eps)
    minimal = attack in MINIMAL
    moved = (
        np.where(right, distance if minimal else np.minimum(distance, eps), 0.0) if attack != "none" else 0.0 * distance
    )
    prediction = np.where(won & right, (base["label"] + 1) % len(scene.classes), base["clean_prediction"])
    sure = rng.uniform(0.55, 0.99, len(base))
    k = len(scene.classes)
    one_hot = np.eye(k)
    spread = lambda at: list(one_hot[at] * (sure - (1 - sure) / (k - 1))[:, None] + ((1 - sure) / (k - 1))[:, None])  # noqa: E731
    return base.assign(
        source=source if attack != "none" else base["defense"],
        attack=attack,
        threat=label_of(family, eps, unit) if attack != "none" else "none",
        threat_family=family,
        norm=norm,
        eps=float(eps),
        unit=unit,
        adversarial_prediction=prediction,
        clean_probabilities=spread(base["clean_prediction"].to_numpy()),
        adversarial_probabilities=spread(prediction),
        won=won if attack != "none" else False,
        put_back=(rng.random(len(base)) < (0.12 if attack == "fgsm" and family == "l2" else 0.0)),
        distance_linf=moved,
        distance_l2=moved,
        distance_l1=moved,
    )


def count_metrics(outcomes: pd.DataFrame, scene: Scene) -> pd.DataFrame:
    attacked = outcomes[(outcomes["attack"] != "none") & (outcomes["source"] == outcomes["defense"])]
    worst = attacked.sort_values("won", ascending=False, kind="stable")
    worst = worst.drop_duplicates(["model", "defense", "threat", "trial", "sample_id"]).assign(attack="worst-case")
    everything = pd.concat([outcomes, worst], ignore_index=True)
    rows = []
    for key, cell in everything.groupby([*KEYS, "trial"], sort=False):
        names = dict(zip([*KEYS, "trial"], key, strict=True))
        budget = cell[["threat_family", "norm", "eps", "unit", "access"]].iloc[0].to_dict()
        parts = [("all", "all", cell)]
        parts += [(f"group:{g}", value, part) for g in scene.groups for value, part in cell.groupby(f"group:{g}")]
        rows += [
            names | budget | {"group": g.removeprefix("group:"), "value": v} | measure(part, scene)
            for g, v, part in parts
        ]
    return pd.DataFrame(rows)


def measure(cell: pd.DataFrame, scene: Scene) -> dict[str, Any]:
    label, predicted = cell["label"].to_numpy(), cell["adversarial_prediction"].to_numpy()
    accuracy = float((label == predicted).mean())
    found, cleared = [], []
    for one in [scene.positive] if scene.positive is not None else range(len(scene.classes)):
        found.append(np.mean(predicted[label == one] == one) if (label == one).any() else math.nan)
        cleared.append(np.mean(predicted[label != one] != one) if (label != one).any() else math.nan)
    right = (cell["clean_prediction"] == cell["label"]).to_numpy()
    success = (
        float(cell["won"].to_numpy()[right].mean()) if cell["attack"].iloc[0] != "none" and right.any() else math.nan
    )
    return {
        "n": len(cell),
        "n_positive": float((label == scene.positive).sum()) if scene.positive is not None else math.nan,
        "accuracy": accuracy,
        "balanced_accuracy": float(np.mean([*found, *cleared])),
        "auroc": min(1.0, accuracy + 0.05),
        "sensitivity": float(np.mean(found)),
        "specificity": float(np.mean(cleared)),
        "fpr": 1 - float(np.mean(cleared)),
        "fnr": 1 - float(np.mean(found)),
        "ece": 0.07,
        "attack_success_rate": success,
        "put_back_share": float(cell["put_back"].mean()),
        "median_distance": 1.5,
        "mean_forwards": 40.0,
        "mean_backwards": 20.0,
    }
