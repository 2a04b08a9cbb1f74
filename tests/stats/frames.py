"""Small outcomes tables, made by hand or drawn, in the run folder's format."""

from __future__ import annotations

import numpy as np
import pandas as pd


def row(sample, *, label, clean, adversarial=None, p_true=None, won=None, **changes):
    """One row; `p_true` is the probability of the true class under attack (binary)."""
    adversarial = clean if adversarial is None else adversarial
    p_true = (0.9 if adversarial == label else 0.1) if p_true is None else p_true
    probabilities = [1 - p_true, p_true] if label == 1 else [p_true, 1 - p_true]
    right_clean = [0.1, 0.9] if clean == 1 else [0.9, 0.1]
    base = {
        "run": "r", "cell": "c", "trial": 0, "model": "m", "defense": "none", "source": "none", "attack": "none",
        "threat": "none", "threat_family": "none", "norm": "none", "eps": 0.0, "unit": "", "access": "gradient",
        "sample_id": sample, "patient_id": f"p-{sample}", "group:sex": "F", "label": label, "clean_prediction": clean,
        "adversarial_prediction": adversarial, "clean_probabilities": right_clean,
        "adversarial_probabilities": probabilities, "won": adversarial != label if won is None else won,
        "put_back": False, "distance_linf": 0.0, "distance_l2": 0.0, "distance_l1": 0.0, "forwards": 1.0,
        "backwards": 0.0,
    }  # fmt: skip
    return base | changes


ATTACKED = {"threat": "linf 8/255", "threat_family": "linf", "norm": "linf", "eps": 8.0, "unit": "/255"}


def frame(rows):
    return pd.DataFrame(rows)


def drawn(*, trials=3, samples=40, defenses=("none", "jpeg"), attacks=("fgsm", "pgd"), seed=0, patients=None):
    """A table of consistent outcomes: `won` says what the predictions say, transfer rows included."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, samples)
    rows = []
    for trial in range(trials):
        for number, defense in enumerate(defenses):
            clean = np.where(rng.random(samples) < 0.9 - 0.02 * number, label, 1 - label)
            rows += _cell(rng, trial, defense, defense, "none", label, clean, clean, patients)
            for place, attack in enumerate(attacks):
                for source in dict.fromkeys([defense, "none"]):
                    strength = 0.3 + 0.2 * place - 0.1 * number - (0.2 if source != defense else 0)
                    fooled = (rng.random(samples) < strength) | (clean != label)
                    adversarial = np.where(fooled, 1 - label, label)
                    rows += _cell(rng, trial, defense, source, attack, label, clean, adversarial, patients)
    return frame(rows)


def _cell(rng, trial, defense, source, attack, label, clean, adversarial, patients):
    budget = ATTACKED if attack != "none" else {}
    chance = rng.uniform(0.5, 1, len(label))
    return [
        row(
            f"s{i}", label=int(label[i]), clean=int(clean[i]), adversarial=int(adversarial[i]),
            p_true=float(chance[i] if adversarial[i] == label[i] else 1 - chance[i]), trial=trial, defense=defense,
            source=source, attack=attack, patient_id=f"p{i if patients is None else i % patients}",
            **{"group:sex": "FM"[i % 2], "group:site": f"site {i % 3}"}, distance_linf=float(chance[i]), **budget,
        )
        for i in range(len(label))
    ]  # fmt: skip
