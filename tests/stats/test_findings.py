"""Several findings: a goal about one of them has its sensitivity and specificity, and its own clean accuracy."""

import numpy as np
import pandas as pd
import pytest

from titer.stats import tables
from titer.stats.protocol import analyse

from .frames import ATTACKED, drawn, frame, row

RATES = ["balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "ece"]
HIDE = ATTACKED | {"threat": "hide linf 8/255", "goal": "hide:mass"}
ANY = ATTACKED | {"goal": "any-error"}
# s0 to s5: whether the mass is there, whether it is reported without attack, whether the whole report is right
THERE = [1, 1, 1, 1, 0, 0]
REPORTED = [1, 1, 1, 0, 0, 1]
WHOLE = [True, False, False, False, False, False]
UNKNOWN = [float("nan")] * 2


def _about_all(trial, attacked):
    """Rows of the clean cell (None), or under any error, as right (0) and wrong (1) reports, without probabilities."""
    clean = [int(not right) for right in WHOLE]
    keys = {"trial": trial} | ({} if attacked is None else {"attack": "pgd"} | ANY)
    return [
        row(f"s{i}", label=0, clean=clean[i], adversarial=one, clean_error=float(clean[i]),
            adversarial_error=float(one), **keys) | {"adversarial_probabilities": UNKNOWN}
        for i, one in enumerate(attacked or clean)
    ]  # fmt: skip


def _about_the_mass(attack, reported, chances, *, trial=0, errors=(1.0,) * 6, **goal):
    return [
        row(f"s{i}", label=THERE[i], clean=REPORTED[i], adversarial=reported[i], p_true=chances[i], trial=trial,
            attack=attack, eligible=THERE[i] == 1, won=THERE[i] == 1 and reported[i] == 0, clean_error=1.0,
            adversarial_error=errors[i], **(HIDE | goal))
        for i in range(6)
    ]  # fmt: skip


def _table(trials=1):
    rows = []
    for trial in range(trials):
        rows += _about_all(trial, None) + _about_all(trial, [1] * 6)
        # s1 falls to pgd, and s2 to fgsm; in the last trial s0 falls to pgd as well
        fallen = [int(trial < 2), 0, 1, 0, 0, 1]
        rows += _about_the_mass("pgd", fallen, [0.6, 0.2, 0.9, 0.1, 0.9, 0.3], trial=trial)
        rows += _about_the_mass("fgsm", [1, 1, 0, 0, 0, 1], [0.7, 0.8, 0.4, 0.2, 0.9, 0.3], trial=trial)
    return frame(rows)


def _whole(table, *, findings=True, **keys):
    found = tables.metrics(table, positive=None, classes=2, findings=findings)
    return found[found["group"] == "all"].set_index(["attack", "threat"])


def test_a_goal_about_one_finding_has_the_rates_of_that_finding():
    found = _whole(_table())
    pgd, worst = found.loc[("pgd", HIDE["threat"])], found.loc[("worst-case", HIDE["threat"])]
    assert (pgd["sensitivity"], pgd["specificity"], pgd["n_positive"]) == (0.5, 0.5, 4)
    assert (worst["sensitivity"], worst["specificity"]) == (0.25, 0.5)
    assert (worst["fnr"], worst["fpr"], worst["balanced_accuracy"]) == (0.75, 0.5, 0.375)
    # 8 pairs of ill and healthy; reported: 0.6, 0.2, 0.9, 0.1 against 0.1 and 0.7
    assert pgd["auroc"] == pytest.approx((1 + 0 + 1 + 0 + 1 + 1 + 1 + 0.5) / 8, abs=0.1)
    assert (worst["attack_success_rate"], worst["adversarial_error"]) == (pytest.approx(2 / 3), 1.0)
