"""The JSON files and example pairs of a simulated run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulate import KEYS, Scene, label_of

METRICS = ["accuracy", "sensitivity", "specificity", "fpr", "fnr", "attack_success_rate"]


def summary(scene: Scene, metrics: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    overall = metrics[metrics["group"] == "all"]
    for key, cell in overall.groupby(KEYS, sort=False):
        names = dict(zip(KEYS, key, strict=True)) | cell[["threat_family", "norm", "eps", "unit"]].iloc[0].to_dict()
        for metric in METRICS:
            values = cell[metric].dropna().to_numpy()
            if not len(values):
                continue
            mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
            half = 2.776 * sd / len(values) ** 0.5 if sd is not None else None
            wald = 1.96 * (max(mean * (1 - mean), 0.001) / scene.n) ** 0.5
            rows.append(
                names
                | {"metric": metric, "n_trials": len(values), "mean": mean, "sd": sd}
                | {"ci_low": None if half is None else mean - half, "ci_high": None if half is None else mean + half}
                | {"pooled_ci_low": max(0, mean - wald), "pooled_ci_high": min(1, mean + wald), "pooled_method": "bootstrap"}
            )
    return rows


def statistics(scene: Scene, metrics: pd.DataFrame) -> dict[str, Any]:
    rows = summary(scene, metrics)
    at = {(r["defense"], r["source"], r["attack"], r["threat"], r["metric"]): r["mean"] for r in rows}
    many = scene.trials > 1
    before_after, versus, transfer = [], [], []
    for family, _, eps, unit in scene.threats:
        threat = label_of(family, eps, unit)
        base = at["none", "none", "worst-case", threat, "attack_success_rate"]
        for defense in scene.hold:
            for attack in (*scene.attacks, "worst-case"):
                clean, hit = at[defense, defense, "none", "none", "accuracy"], at[defense, defense, attack, threat, "accuracy"]
                names = {"model": "small-cnn", "defense": defense, "source": defense, "attack": attack, "threat": threat}
                before_after.append(names | _comparison(scene, clean, hit))
            if defense == "none":
                continue
            success = at[defense, defense, "worst-case", threat, "attack_success_rate"]
            versus.append(
                {"model": "small-cnn", "defense": defense, "attack": "worst-case", "threat": threat}
                | {"success_undefended": base, "success_defended": success, "relative_reduction": 1 - success / base}
                | {"clean_accuracy_change": -0.02, "p": 0.0004 if many else None, "p_holm": 0.0008 if many else None}
                | {"test": "paired t-test" if many else None, "mcnemar": {"test": "McNemar exact", "p": 0.00002, "p_holm": 0.0001}}
            )
            transfer.append(
                {"model": "small-cnn", "defense": defense, "attack": "pgd", "threat": threat}
                | {"right_without_adaptation": 0.8, "right_with_adaptation": 0.5, "clean_accuracy_kept": 0.97, "n_fooled": 100}
            )
    warnings = ["Trials share the test part, so the interval over trials covers training only."] if many else []
    protocol = {
        "confidence": 0.95,
        "alpha": 0.05,
        "paired": {"test": "paired t-test, Wilcoxon where normality fails", "reference": "Student 1908; Wilcoxon 1945"},
        "correction": "Holm 1979",
    }
    return {
        "protocol": protocol,
        "summary": rows,
        "before_after": before_after,
        "across_defenses": _across(scene) if many else [],
        "versus_undefended": versus,
        "transfer": transfer,
        "warnings": warnings,
    }


def _comparison(scene: Scene, clean: float, hit: float) -> dict[str, Any]:
    if scene.trials < 2:
        return {"mean_before": clean, "mean_after": hit, "mean_difference": hit - clean, "p": None, "reason": "one trial"}
    change = hit - clean
    return {
        "mean_before": clean,
        "mean_after": hit,
        "mean_difference": change,
        "ci_low": change - 0.05,
        "ci_high": change + 0.05,
        "normality": {"statistic": 0.95, "p": 0.72, "normal": True, "reason": None},
        "test": "paired t-test",
        "statistic": -14.2,
        "p": 0.00014,
        "p_holm": 0.0011,
        "d_z": -6.35,
        "d_pooled": -4.1,
        "power": 0.99 if abs(change) > 0.1 else 0.4,
        "n_needed": 3,
        "mcnemar": {"test": "McNemar chi-squared", "n": 300, "lost": 190, "gained": 0, "statistic": 190.0, "p": 1e-30},
        "reason": None,
    }


def _across(scene: Scene) -> list[dict[str, Any]]:
    family, _, eps, unit = scene.threats[-1]
    pairs = [
        {"a": "none", "b": d, "mean_difference": 0.4, "ci_low": 0.3, "ci_high": 0.5, "p": 1e-5, "p_corrected": 3e-5, "cohens_d": 4.2}
        | {"significant": True}
        for d in scene.hold
        if d != "none"
    ]
    shared = {"method": "anova", "omnibus_test": "one-way ANOVA", "statistic": 14.7, "p": 7e-5, "eta_squared": 0.81, "power": 0.99}
    names = {"model": "small-cnn", "attack": "worst-case", "threat": label_of(family, eps, unit)}
    return [names | shared | {"pair_test": "Tukey HSD", "pairs": pairs, "kendalls_w": None, "reason": None}]


def checks(scene: Scene) -> list[dict[str, Any]]:
    rows = []
    for defense in scene.hold:
        for name in ("gradients-not-zero", "more-steps-no-worse", "white-box-no-worse-than-transfer"):
            bad = defense in scene.failing and name == "white-box-no-worse-than-transfer"
            message = (
                "Inputs found on the undefended model fool this model more often than inputs found on the model itself."
                if bad
                else "The attack behaves as it should."
            )
            rows.append(
                {"check": name, "model": "small-cnn", "defense": defense, "threat_family": "linf", "value": 0.0, "limit": 0.1}
                | {"result": "fail" if bad else "pass", "message": message, "consequence": "robustness overestimated"}
            )
    return rows


def costs(scene: Scene) -> dict[str, Any]:
    names = [(trial, index, defense) for trial in range(scene.trials) for index, defense in enumerate(scene.hold)]
    return {
        "training": [
            {"trial": t, "model": "small-cnn", "defense": d, "cpu_seconds": 12.0 * (1 + 2 * i), "wall_seconds": 9.0, "epochs": 12}
            | {"includes_base": True, "cached": False}
            for t, i, d in names
        ],
        "attacks": [],
        "inference": [
            {"trial": t, "model": "small-cnn", "defense": d, "cpu_seconds_per_sample": 0.0004 * (1 + i)} for t, i, d in names
        ],
    }


def skipped(scene: Scene) -> list[dict[str, Any]]:
    if scene.kind != "image":
        return []
    cell = {"model": "small-cnn", "source": "jpeg", "attack": "fgsm", "threat": "l2 200/255"}
    return [cell | {"trial": t, "reason": "the attack needs a single-step norm"} for t in range(scene.trials)]


def manifest(scene: Scene, outcomes: pd.DataFrame) -> dict[str, Any]:
    data = {
        "name": scene.name,
        "title": scene.title,
        "source": "https://example.org/data",
        "licence": "CC-BY-4.0",
        "sha256": "9f" * 32,
        "kind": scene.kind,
        "classes": list(scene.classes),
        "positive": scene.positive,
        "n_train": 4708,
        "n_validation": 524,
        "n_test": scene.n,
        "groups": list(scene.groups),
        "test_fixed": False,
    }
    papers = {"fgsm": "Goodfellow 2015, arXiv:1412.6572", "pgd": "Madry 2018, arXiv:1706.06083"}
    titles = {"fgsm": "Fast gradient sign (FGSM)", "pgd": "Projected gradient descent (PGD)", "square": "Square attack"}
    return {
        "titer_version": "0.1.0",
        "commit": "3f2a91c",
        "name": scene.name,
        "title": scene.title,
        "run": "abcdef012345",
        "started": "2026-11-22T03:00:00Z",
        "finished": "2026-11-22T03:20:00Z",
        "wall_seconds": 1200.0,
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 24, "device": "cpu", "system": "Linux"},
        "seed": 0,
        "trials": scene.trials,
        "trial_seeds": list(range(11, 11 + scene.trials)),
        "plan_sha256": "ab" * 32,
        "data": data,
        "models": [{"label": "small-cnn", "spec": {"network": "small-cnn", "epochs": 12}}],
        "defenses": [{"label": d, "title": scene.titles[d], "spec": [] if d == "none" else [{"name": d}]} for d in scene.hold],
        "attacks": [
            {"label": a, "spec": {"name": a, "steps": 40}, "title": titles.get(a, "Carlini & Wagner"), "minimal": a == "carlini-wagner"}
            | {"paper": papers.get(a, "Carlini 2017, arXiv:1608.04644"), "threats": ["NISTAML.022", "AML.T0043.000"]}
            for a in scene.attacks
        ],
        "threats": [
            {"label": label_of(f, e, u), "family": f, "norm": n, "eps": e, "unit": u, "goal": "untargeted", "access": "gradient"}
            | {"domain": ["each value in [0, 255]"] if scene.kind == "image" else ["ages are whole numbers"]}
            for f, n, e, u in scene.threats
        ],
        "weights": [
            {"trial": t, "model": "small-cnn", "defense": d, "sha256": f"{t}{i}" * 32}
            for t in range(scene.trials)
            for i, d in enumerate(scene.hold)
        ],
    }


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
        meta |= {"threat_family": family, "norm": norm, "eps": eps, "unit": unit, "kind": scene.kind, "channels_first": True}
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


def _pairs(scene: Scene, n: int, eps: float, rng: np.random.Generator, *, colour: bool) -> tuple[np.ndarray, np.ndarray]:
    if scene.kind != "image":
        clean = np.abs(rng.normal(5, 2, (n, 10)))
        return clean, rng.choice([-1, 0, 1], (n, 10)) * eps
    y, x = np.mgrid[0:28, 0:28] / 27.0
    lungs = np.exp(-((x - 0.3) ** 2 + (y - 0.5) ** 2) * 22) + np.exp(-((x - 0.7) ** 2 + (y - 0.5) ** 2) * 22)
    picture = np.clip(200 - 150 * lungs + rng.normal(0, 6, (n, 3 if colour else 1, 28, 28)), 0, 255)
    return picture, np.clip(picture + rng.choice([-1, 1], picture.shape) * eps, 0, 255) - picture
