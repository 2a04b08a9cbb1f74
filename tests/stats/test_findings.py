"""Several findings: a goal about one of them has its sensitivity and specificity, and its own clean accuracy."""

import numpy as np
import pytest

from titer.stats import tables
from titer.stats.protocol import analyse

from .frames import ATTACKED, frame, row

RATES = ["balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "ece"]
HIDE = ATTACKED | {"threat": "hide linf 8/255", "goal": "hide:mass"}
ANY = ATTACKED | {"goal": "any-error"}
# s0 to s5: whether the mass is there, whether it is reported without attack, whether the whole report is right
THERE = [1, 1, 1, 1, 0, 0]
REPORTED = [1, 1, 1, 0, 0, 1]
WHOLE = [True, False, False, False, False, False]
UNKNOWN = [float("nan"), float("nan")]


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
        rows += _about_the_mass("pgd", fallen, [0.6, 0.2, 0.9, 0.1, 0.95, 0.3], trial=trial)
        more = {"trial": trial, "errors": (2.0,) * 6}
        rows += _about_the_mass("fgsm", [1, 1, 0, 0, 0, 1], [0.7, 0.8, 0.4, 0.2, 0.9, 0.3], **more)
    return frame(rows)


def _whole(table, *, findings=True):
    found = tables.metrics(table, positive=None, classes=2, findings=findings)
    return found[found["group"] == "all"].set_index(["attack", "threat"])


def _before_after(table, attack, threat, **kind):
    found = analyse(table, tables.metrics(table, positive=None, classes=2, **kind))
    rows = [each for each in found["before_after"] if (each["attack"], each["threat"]) == (attack, threat)]
    assert len(rows) == 1
    return rows[0]


def test_a_goal_about_one_finding_has_the_rates_of_that_finding():
    found = _whole(_table())
    pgd, worst = found.loc[("pgd", HIDE["threat"])], found.loc[("worst-case", HIDE["threat"])]
    assert (pgd["sensitivity"], pgd["specificity"], pgd["n_positive"]) == (0.5, 0.5, 4)
    assert (worst["sensitivity"], worst["specificity"]) == (0.25, 0.5)
    assert (worst["fnr"], worst["fpr"], worst["balanced_accuracy"]) == (0.75, 0.5, 0.375)
    assert pgd["auroc"] == 5 / 8  # with the mass 0.6, 0.2, 0.9, 0.1; without 0.05, 0.7
    assert worst["attack_success_rate"] == pytest.approx(2 / 3)


def test_rows_about_all_findings_have_none():
    found = _whole(_table())
    about_all = found.drop(index=HIDE["threat"], level="threat")
    assert sorted(about_all.index.get_level_values("attack")) == ["none", "pgd", "worst-case"]
    assert about_all[RATES].isna().all(axis=None)
    assert about_all["n_positive"].isna().all()
    assert found.loc[("none", "none"), ["accuracy", "clean_error"]].tolist() == pytest.approx([1 / 6, 5 / 6])


@pytest.mark.parametrize("goal", ["hide:lesion", "shrink:0.5", "shift:12", "any-error"])
def test_values_and_masks_have_none_whatever_their_goal(goal):
    table = _table()
    table.loc[table["threat"] == HIDE["threat"], "goal"] = goal
    found = _whole(table, findings=False)
    assert found[RATES].isna().all(axis=None)
    assert found["n_positive"].isna().all()
    if not goal.startswith("hide"):
        assert _whole(table)[RATES].isna().all(axis=None)


def test_an_invented_finding_costs_specificity():
    table = _table()
    mine = table["goal"] == "hide:mass"
    ill = table["label"] == 1
    table.loc[mine, "goal"] = "invent:mass"
    table.loc[mine, "eligible"] = ~ill[mine]
    table.loc[mine, "adversarial_prediction"] = 1
    table.loc[mine, "won"] = ~ill[mine]
    pgd = _whole(table).loc[("pgd", HIDE["threat"])]
    assert (pgd["sensitivity"], pgd["specificity"], pgd["attack_success_rate"]) == (1.0, 0.0, 1.0)


def test_a_model_that_tells_decisions_only_has_sensitivity_but_no_auroc():
    table = _table()
    table["adversarial_probabilities"] = [UNKNOWN] * len(table)
    pgd = _whole(table).loc[("pgd", HIDE["threat"])]
    assert (pgd["sensitivity"], pgd["specificity"]) == (0.5, 0.5)
    assert pgd[["auroc", "ece"]].isna().all()


def test_the_worst_case_doubts_the_finding_and_not_the_whole_report():
    worst = tables.worst_case(_table())
    held = worst[(worst["threat"] == HIDE["threat"]) & (worst["sample_id"] == "s0")].iloc[0]
    # pgd left the mass 0.6 and one wrong finding, fgsm 0.7 and two
    assert (held["adversarial_probabilities"], held["adversarial_error"]) == ([0.4, 0.6], 1.0)


def test_before_and_after_a_goal_are_about_the_same_finding():
    row_ = _before_after(_table(trials=3), "pgd", HIDE["threat"], findings=True)
    assert row_["clean_mean"] == pytest.approx(4 / 6)  # the clean cell has 1 of 6 wholly right
    assert row_["attacked_mean"] == pytest.approx((3 + 3 + 2) / 18)
    assert row_["mean_difference"] == pytest.approx(row_["attacked_mean"] - 4 / 6)
    assert (row_["mcnemar_n"], row_["mcnemar_lost"], row_["mcnemar_gained"]) == (6, 1, 0)
    about_all = _before_after(_table(trials=3), "pgd", ANY["threat"], findings=True)
    assert (about_all["clean_mean"], about_all["attacked_mean"]) == (pytest.approx(1 / 6), 0.0)


def test_before_and_after_any_error_is_against_the_clean_cell():
    table = _table(trials=2)
    table = table[~((table["threat"] == ANY["threat"]) & (table["sample_id"] != "s0"))]
    row_ = _before_after(table, "pgd", ANY["threat"], findings=True)
    assert (row_["clean_mean"], row_["attacked_mean"]) == (pytest.approx(1 / 6), 0.0)


def test_the_rates_stand_in_the_summary():
    table = _table(trials=3)
    found = analyse(table, tables.metrics(table, positive=None, classes=2, findings=True))
    rows = {(each["attack"], each["threat"], each["metric"]): each for each in found["summary"]}
    assert rows["pgd", HIDE["threat"], "sensitivity"]["mean"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert rows["pgd", HIDE["threat"], "sensitivity"]["n_trials"] == 3
    assert rows["none", "none", "sensitivity"]["mean"] is None


def test_only_subgroups_of_rows_about_one_finding_can_lack_it():
    table = _table()
    assert not any("lack a class" in each for each in _warnings(table))
    table["group:sex"] = np.where(table["sample_id"].isin(["s4", "s5"]), "F", "M")
    assert any("lack a class in a trial" in each and "sex = M, sex = F" in each for each in _warnings(table))
    about_all = table[table["goal"].fillna("any-error") == "any-error"]
    assert not any("lack a class" in each for each in _warnings(about_all))


def _warnings(table):
    return analyse(table, tables.metrics(table, positive=None, classes=2, findings=True))["warnings"]
