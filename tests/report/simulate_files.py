"""The JSON files and example pairs of a simulated run folder."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tests.report.simulate import KEYS, MINIMAL, Scene, label_of

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
                | {
                    "pooled_ci_low": max(0, mean - wald),
                    "pooled_ci_high": min(1, mean + wald),
                    "pooled_method": "bootstrap",
                }
            )
    return rows


def statistics(scene: Scene, metrics: pd.DataFrame) -> dict[str, Any]:
    rows = summary(scene, metrics)
    at = {(r["defense"], r["source"], r["attack"], r["threat"], r["metric"]): r["mean"] for r in rows}
    before_after, versus, transfer = [], [], []
    for family, _, eps, unit in scene.threats:
        threat = label_of(family, eps, unit)
        base = at["none", "none", "worst-case", threat, "attack_success_rate"]
        for defense in scene.hold:
            clean = at[defense, defense, "none", "none", "accuracy"]
            names = {"model": "small-cnn", "defense": defense, "source": defense, "threat": threat}
            for attack in (*scene.attacks, "worst-case"):
                hit = at[defense, defense, attack, threat, "accuracy"]
                means = {"attack": attack, "clean_mean": clean, "attacked_mean": hit}
                before_after.append(names | means | paired(scene, hit - clean))
            if defense == "none":
                continue
            success = at[defense, defense, "worst-case", threat, "attack_success_rate"]
            rates = {"attack_success_rate_undefended": base, "attack_success_rate_defended": success}
            versus.append(
                names
                | {"attack": "worst-case"}
                | rates
                | figure("relative_reduction", 1 - success / base, scene)
                | figure("clean_accuracy_change_points", -2.0, scene)
                | paired(scene, success - base)
            )
            shares = [figure(name, 0.8, scene) for name in ("recovered", "adaptive", "clean_accuracy_kept")]
            transfer.append(names | {"attack": "pgd", "n_fooled_per_trial": 40.2} | shares[0] | shares[1] | shares[2])
    return {
        "protocol": {
            "alpha": 0.05,
            "methods": [
                {"name": "Paired t-test", "reference": "Student 1908", "settings": {"sides": 2}, "use": "over trials"}
            ],
            "notes": ["Every figure is an upper bound on robustness: a stronger attack can only lower it."],
        },
        "summary": rows,
        "before_after": before_after,
        "across_defenses": across(scene) if scene.trials > 1 else [],
        "versus_undefended": versus,
        "ranking": ranking(scene, at),
        "transfer": transfer,
        "warnings": [] if scene.trials > 1 else ["Only one trial was run: no test over trials could be done."],
    }


def ranking(scene: Scene, at: dict[tuple[str, ...], float]) -> list[dict[str, Any]]:
    """Rank the defences by mean; the undefended model has a letter of its own."""
    rows = []
    threats = [label_of(family, eps, unit) for family, _, eps, unit in scene.threats]
    for attack, threat in (("none", "none"), *(("worst-case", threat) for threat in threats)):
        means = {d: at[d, d, attack, threat, "accuracy"] for d in scene.hold}
        order = [
            {"defense": d, "mean": means[d], "letters": "b" if d == "none" else "a"}
            for d in sorted(means, key=lambda d: -means[d])
        ]
        rows.append({"model": "small-cnn", "attack": attack, "threat": threat, "metric": "accuracy", "order": order})
    return [row | {"test": "McNemar's test over patients, Holm-corrected"} for row in rows]


def figure(stem: str, mean: float, scene: Scene) -> dict[str, Any]:
    bounds = (mean - 0.05, mean + 0.05) if scene.trials > 1 else (None, None)
    return {f"{stem}_mean": mean, f"{stem}_ci_low": bounds[0], f"{stem}_ci_high": bounds[1], f"{stem}_reason": None}


def paired(scene: Scene, change: float) -> dict[str, Any]:
    patients = {
        "mcnemar_test": "McNemar chi-squared",
        "mcnemar_lost": 3,
        "mcnemar_gained": 41,
        "mcnemar_p": 1e-9,
        "mcnemar_p_holm": 1e-8,
        "mcnemar_median_p": 1e-7,
    }
    blank = dict.fromkeys(
        ("ci_low", "ci_high", "shapiro_p", "test", "p", "p_holm", "d_z", "d_pooled", "power", "n_needed")
    )
    if scene.trials < 2:
        return blank | patients | {"mean_difference": change, "reason": "one trial"}
    return patients | {
        "mean_difference": change,
        "ci_low": change - 0.05,
        "ci_high": change + 0.05,
        "shapiro_p": 0.72,
        "test": "paired t-test",
        "p": 0.00014,
        "p_holm": 0.0011 if abs(change) > 0.15 else 0.4,
        "d_z": -6.35,
        "d_pooled": -4.1,
        "power": 0.99 if abs(change) > 0.1 else 0.4,
        "n_needed": 3,
        "reason": None,
    }


def across(scene: Scene) -> list[dict[str, Any]]:
    family, _, eps, unit = scene.threats[-1]
    pairs = [
        {"a": "none", "b": d, "mean_difference": -0.4, "ci_low": -0.5, "ci_high": -0.3, "p": None, "p_corrected": 3e-5}
        | {"cohens_d": 4.2, "significant": True}
        for d in scene.hold
        if d != "none"
    ]
    shared = {
        "omnibus_test": "one-way ANOVA",
        "statistic": 14.7,
        "p": 7e-5,
        "p_holm": 2e-4,
        "eta_squared": 0.81,
        "power": 0.99,
    }
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
                {
                    "check": name,
                    "model": "small-cnn",
                    "defense": defense,
                    "threat_family": "linf",
                    "value": 0.0,
                    "limit": 0.1,
                }
                | {"result": "fail" if bad else "pass", "message": message, "consequence": "robustness overestimated"}
            )
    return rows


def costs(scene: Scene) -> dict[str, Any]:
    names = [(trial, index, defense) for trial in range(scene.trials) for index, defense in enumerate(scene.hold)]
    return {
        "training": [
            {
                "trial": t,
                "model": "small-cnn",
                "defense": d,
                "cpu_seconds": 12.0 * (1 + 2 * i),
                "wall_seconds": 9.0,
                "epochs": 12,
            }
            | {"includes_base": True}
            for t, i, d in names
        ],
        "attacks": [],
        "inference": [
            {"trial": t, "model": "small-cnn", "defense": d, "cpu_seconds_per_sample": 0.0004 * (1 + i)}
            for t, i, d in names
        ],
    }


def skipped(scene: Scene) -> list[dict[str, Any]]:
    if scene.newer:
        return newer_gaps(scene)
    if scene.kind != "image":
        return []
    cell = {"model": "small-cnn", "source": "jpeg", "attack": "fgsm", "threat": "l2 200/255"}
    return [cell | {"trial": t, "reason": "the attack needs a single-step norm"} for t in range(scene.trials)]


def newer_gaps(scene: Scene) -> list[dict[str, Any]]:
    threat = label_of(scene.threats[0][0], *scene.threats[0][2:])
    cell = {"trial": 0, "model": "small-cnn", "source": "none", "threat": threat}
    reasons = {"hopskipjump": "failed: the endpoint answered 500 after 4 tries."}
    names = {"patch": "a patch needs a mask", "jsma": "it changes single values: the budget must be in L0"}
    names |= {"zoo": "no scores", "spsa": "no scores", "universal": "no training data"}
    return [cell | {"attack": name, "reason": reason} for name, reason in (names | reasons).items()]


def manifest(scene: Scene) -> dict[str, Any]:
    data = {
        "name": scene.name,
        "title": scene.title,
        "source": "https://example.org/data",
        "licence": "CC-BY-4.0",
        "sha256": "9f" * 32,
        "kind": scene.kind,
        "classes": list(scene.classes) if scene.output in ("classes", "labels") else [],
        "positive": scene.positive,
        "n_train": 4708,
        "n_validation": 524,
        "n_test": scene.n,
        "groups": list(scene.groups),
        "test_fixed": False,
    } | ({"output": scene.output, "output_unit": scene.output_unit} if scene.newer else {})
    papers = {"fgsm": "Goodfellow 2015, arXiv:1412.6572", "pgd": "Madry 2018, arXiv:1706.06083"}
    titles = {"fgsm": "Fast gradient sign (FGSM)", "pgd": "Projected gradient descent (PGD)", "square": "Square attack"}
    titles |= {"fmn": "Fast minimum norm (FMN)", "hopskipjump": "HopSkipJump"}
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
        "defenses": [
            {"label": d, "title": scene.titles[d], "spec": [] if d == "none" else [{"name": d}]} for d in scene.hold
        ],
        "attacks": [
            {
                "label": a,
                "spec": {"name": a, "queries": 2000} if a == "square" else {"name": a, "steps": 40},
                "title": titles.get(a, "Carlini & Wagner"),
                "minimal": a in MINIMAL,
            }
            | ({"access": "scores" if a == "square" else "gradient"} if scene.newer else {})
            | {"paper": papers.get(a, "Carlini 2017, arXiv:1608.04644"), "threats": ["NISTAML.022", "AML.T0043.000"]}
            for a in scene.attacks
        ],
        "threats": [
            {
                "label": label_of(f, e, u),
                "family": f,
                "norm": n,
                "eps": e,
                "unit": u,
                "goal": scene.goals.get(f, "untargeted"),
                "access": "gradient",
            }
            | {"domain": ["each value in [0, 255]"] if scene.kind == "image" else ["ages are whole numbers"]}
            for f, n, e, u in scene.threats
        ],
        "weights": [
            {"trial": t, "model": "small-cnn", "defense": d, "sha256": f"{t}{i}" * 32}
            for t in range(scene.trials)
            for i, d in enumerate(scene.hold)
        ],
    }
