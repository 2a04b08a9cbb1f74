"""Scenes of the newer format: goals about one class, surrogates, queries, and outputs that are no class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.report.simulate import Scene

BRAIN = Scene(
    name="brain",
    title="Tumour type on brain MRI (64 × 64)",
    kind="image",
    classes=("glioma", "meningioma", "pituitary", "no tumour"),
    positive=None,
    hold={"none": 0.0, "adversarial-training": 0.75, "jpeg": 0.35},
    titles={"none": "No defence", "adversarial-training": "Adversarial training", "jpeg": "JPEG compression"},
    threats=(
        ("linf", "linf", 4, "/255"),
        ("linf", "linf", 8, "/255"),
        ("hide glioma", "linf", 8, "/255"),
        ("invent glioma", "linf", 8, "/255"),
    ),
    attacks=("pgd", "fmn", "carlini-wagner", "square", "hopskipjump"),
    trials=3,
    n=80,
    groups=("sex",),
    newer=True,
    goals={"hide glioma": "hide:glioma", "invent glioma": "invent:glioma"},
    surrogates=("resnet18", "stolen copy of small-cnn"),
)
AGE = Scene(
    name="bone-age",
    title="Bone age on hand radiographs",
    kind="image",
    classes=("within", "beyond"),
    positive=None,
    hold={"none": 0.0, "adversarial-training": 0.6},
    titles={"none": "No defence", "adversarial-training": "Adversarial training"},
    threats=(("linf", "linf", 8, "/255"),),
    attacks=("pgd", "fmn"),
    trials=3,
    n=60,
    groups=("sex",),
    newer=True,
    output="value",
    output_unit="months",
)
XRAY = Scene(
    name="findings",
    title="Findings on chest radiographs",
    kind="image",
    classes=("effusion", "nodule", "mass"),
    positive=None,
    hold={"none": 0.0, "adversarial-training": 0.75, "jpeg": 0.35},
    titles={"none": "No defence", "adversarial-training": "Adversarial training", "jpeg": "JPEG compression"},
    threats=(
        ("linf", "linf", 4, "/255"),
        ("linf", "linf", 8, "/255"),
        ("hide nodule", "linf", 8, "/255"),
        ("invent mass", "linf", 8, "/255"),
    ),
    attacks=("pgd", "fmn"),
    trials=3,
    n=90,
    groups=("sex",),
    newer=True,
    goals={"hide nodule": "hide:nodule", "invent mass": "invent:mass"},
    output="labels",
)
BLIND = ("square", "hopskipjump")


def with_newer_columns(outcomes: pd.DataFrame, scene: Scene) -> pd.DataFrame:
    """Give simulated outcomes goals, eligible rows, queries and errors, so that they agree with one another."""
    rng = np.random.default_rng(11)
    table = outcomes.assign(
        goal=outcomes["threat_family"].map(scene.goals).fillna("any-error"),
        clean_error=np.nan,
        adversarial_error=np.nan,
    )
    blind = table["attack"].isin(BLIND).to_numpy()
    table["backwards"] = np.where(blind, 0.0, table["backwards"])
    table["forwards"] = np.where(blind, rng.integers(20, 2000, len(table)), table["forwards"])
    table.loc[table["attack"] == "hopskipjump", "access"] = "decision"
    table = _with_goals(table, scene)
    if scene.output == "labels":
        return _findings(table, scene, rng)
    return _graded(table, rng) if scene.output != "classes" else table


def _with_goals(table: pd.DataFrame, scene: Scene) -> pd.DataFrame:
    """Let each goal win only what it is about: the rest stays as it was when clean."""
    kind, name = (table["goal"].str.partition(":")[place] for place in (0, 2))
    aim = name.map({one: place for place, one in enumerate(scene.classes)}).fillna(-1).astype(int)
    has, clean = table["label"] == aim, table["clean_prediction"]
    fallen = table["won"] & (clean == table["label"])
    about = kind != "any-error"
    eligible = np.where(kind == "hide", has, np.where(kind == "invent", ~has, True))
    already = np.where(kind == "hide", has & (clean != aim), (clean == aim) & ~has)
    won = np.where(about, eligible & (already | fallen), table["won"])
    to = np.where(kind == "invent", aim, table["adversarial_prediction"])
    prediction = np.where(about & eligible & fallen & ~already, to, clean)
    distance = {
        f"distance_{norm}": np.where(about & already, 0.0, table[f"distance_{norm}"]) for norm in ("linf", "l2", "l1")
    }
    prediction = np.where(about, prediction, table["adversarial_prediction"])
    return table.assign(
        eligible=eligible.astype(bool), won=won.astype(bool), adversarial_prediction=prediction, **distance
    )


def _graded(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Turn classes into right and wrong, with an error of at most 12 months where right."""
    wrong, fallen = table["clean_prediction"] != table["label"], table["adversarial_prediction"] != table["label"]
    draw = rng.random(len(table))
    return table.assign(
        label=0,
        clean_prediction=wrong.astype(int),
        adversarial_prediction=fallen.astype(int),
        clean_error=np.where(wrong, 12 + 10 * draw, 12 * draw),
        adversarial_error=np.where(fallen, 12 + 30 * draw, 12 * draw),
        clean_probabilities=None,
        adversarial_probabilities=None,
    )


def _findings(table: pd.DataFrame, scene: Scene, rng: np.random.Generator) -> pd.DataFrame:
    """Read each class as a finding that is there by itself: told whole, or as the one that a goal is about."""
    aim = table["goal"].str.partition(":")[2].map({one: place for place, one in enumerate(scene.classes)})
    found, about = table.copy(), aim.notna()
    for name in ("clean", "adversarial"):
        prediction = table[f"{name}_prediction"]
        wrong = prediction != table["label"]
        told = (prediction == aim).where(about, wrong).astype(int)
        chance = np.where(told == 1, 1, -1) * rng.uniform(0.01, 0.49, len(table)) + 0.5
        pairs = np.where(about.to_numpy()[:, None], np.stack([1 - chance, chance], axis=1), np.nan)
        found[f"{name}_prediction"], found[f"{name}_probabilities"] = told, list(pairs)
        found[f"{name}_error"] = np.where(wrong, 1.0 + (rng.random(len(table)) < 0.5), 0.0)
    return found.assign(label=(about & (table["label"] == aim)).astype(int))
