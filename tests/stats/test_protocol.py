import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from titer.stats import tables
from titer.stats.comparisons import paired
from titer.stats.protocol import analyse, plain

from .frames import ATTACKED, drawn, frame, row

SECTIONS = ["summary", "before_after", "across_defenses", "versus_undefended", "ranking", "transfer"]


def _analysed(table, **kind):
    return analyse(table, tables.metrics(table, positive=1, classes=2), **kind)


def _find(rows, **keys):
    found = [each for each in rows if all(each[key] == value for key, value in keys.items())]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def table():
    return drawn(trials=5, samples=60, defenses=("none", "jpeg", "at"), patients=30)


@pytest.fixture(scope="module")
def found(table):
    return _analysed(table)


def test_is_json_and_repeats(table, found):
    assert list(found) == ["format_version", "protocol", *SECTIONS, "warnings"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert _analysed(table) == found


def test_sections_hold_every_setting(found):
    settings = 3 + 3 * 2 + 2 * 2 + 3  # clean, adaptive, transferred, worst case
    queried = 3 * 2  # the simulated attacks make no backward pass: each adaptive one has its median queries
    assert len(found["summary"]) == 9 * settings + queried
    assert len(found["before_after"]) == 9
    assert {(each["attack"], each["threat"]) for each in found["across_defenses"]} == {
        ("none", "none"), ("fgsm", "linf 8/255"), ("pgd", "linf 8/255"), ("worst-case", "linf 8/255"),
    }  # fmt: skip
    assert len(found["versus_undefended"]) == 6
    assert len(found["transfer"]) == 4
    assert {each["source"] for each in found["transfer"]} == {"none"}


def test_summary_agrees_with_scipy(table, found):
    metrics = tables.metrics(table, positive=1, classes=2)
    mine = (metrics["defense"] == "at") & (metrics["source"] == "at") & (metrics["attack"] == "pgd")
    values = metrics[mine & (metrics["group"] == "all")]["auroc"]
    row_ = _find(found["summary"], defense="at", source="at", attack="pgd", metric="auroc")
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (row_["mean"], row_["ci_low"], row_["ci_high"]) == (
        pytest.approx(values.mean()), pytest.approx(low), pytest.approx(high),
    )  # fmt: skip
    assert (row_["n_trials"], row_["pooled_ci_low"], row_["pooled_method"]) == (5, None, "not applicable")
    accuracy = _find(found["summary"], defense="at", source="at", attack="pgd", metric="accuracy")
    assert accuracy["pooled_ci_low"] < accuracy["mean"] < accuracy["pooled_ci_high"]
    assert "bootstrap" in accuracy["pooled_method"]
    clean = _find(found["summary"], defense="at", attack="none", metric="attack_success_rate")
    assert (clean["mean"], clean["n_trials"], clean["pooled_ci_low"]) == (None, 0, None)


def test_before_after_is_the_paired_test_of_the_trials(table, found):
    right = table.assign(right=table["adversarial_prediction"] == table["label"])
    mine = right[(right["defense"] == "jpeg") & (right["source"] == "jpeg")]
    clean = mine[mine["attack"] == "none"].groupby("trial")["right"].mean()
    attacked = mine[mine["attack"] == "fgsm"].groupby("trial")["right"].mean()
    row_, expected = _find(found["before_after"], defense="jpeg", attack="fgsm"), paired(clean, attacked)
    assert (row_["clean_mean"], row_["attacked_mean"]) == (pytest.approx(clean.mean()), pytest.approx(attacked.mean()))
    assert (row_["test"], row_["p"]) == (expected.test, pytest.approx(expected.p))
    first = mine[(mine["attack"] == "fgsm") & (mine["trial"] == 0)]
    was = first["clean_prediction"] == first["label"]
    assert row_["mcnemar_lost"] == int((was & ~first["right"]).sum())
    assert row_["mcnemar_gained"] == int((~was & first["right"]).sum())
    p = [each["p"] for each in found["before_after"]]
    assert row_["p_holm"] >= row_["p"]
    assert max(each["p_holm"] for each in found["before_after"]) >= min(p) * len(p) - 1e-12


def test_pairs_are_significant_only_behind_a_significant_omnibus_test(found):
    for each in found["across_defenses"]:
        assert len(each["pairs"]) == 3
        for pair in each["pairs"]:
            assert not pair["significant"] or (each["p_holm"] < 0.05 and pair["p_corrected"] < 0.05)
            assert pair["mean_difference"] == pytest.approx(each["means"][pair["a"]] - each["means"][pair["b"]])


def _transfer_table():
    """Four samples; fgsm fools the undefended model on s0, s1 (s3 was wrong already); two trials alike."""
    rows = []
    for trial in (0, 1):
        for defense, wrong in (("none", [3]), ("jpeg", [2, 3])):
            rows += [_judged(i, trial, defense, defense, "none", i not in wrong, i not in wrong) for i in range(4)]
        cells = [("none", "none", [2]), ("jpeg", "none", [0, 1]), ("jpeg", "jpeg", [1])]
        for defense, source, right in cells:
            wrong = [3] if defense == "none" else [2, 3]
            rows += [_judged(i, trial, defense, source, "fgsm", i not in wrong, i in right) for i in range(4)]
    return frame(rows)


def _judged(i, trial, defense, source, attack, right_clean, right):
    label = i % 2
    return row(
        f"s{i}", label=label, clean=label if right_clean else 1 - label, adversarial=label if right else 1 - label,
        trial=trial, defense=defense, source=source, attack=attack, **(ATTACKED if attack != "none" else {}),
    )  # fmt: skip


def test_transfer_and_defence_by_hand():
    found = _analysed(_transfer_table())
    moved = _find(found["transfer"], defense="jpeg", attack="fgsm")
    assert moved["n_fooled_per_trial"] == 2
    assert moved["recovered_mean"] == 1.0  # the defence has s0 and s1 right on the inputs found without it
    assert moved["adaptive_mean"] == 0.5  # only s1 once the attacker searches on it
    assert moved["clean_accuracy_kept_mean"] == pytest.approx(0.5 / 0.75)
    assert moved["recovered_ci_low"] is None
    assert "same value" in moved["recovered_reason"]
    gain = _find(found["versus_undefended"], attack="fgsm")
    assert gain["attack_success_rate_undefended"] == pytest.approx(2 / 3)
    assert gain["attack_success_rate_defended"] == pytest.approx(1 / 2)  # right when clean: s0, s1; s0 fell
    assert gain["relative_reduction_mean"] == pytest.approx(1 - 0.5 / (2 / 3))
    assert gain["clean_accuracy_change_points_mean"] == pytest.approx(-25)
    assert (gain["mcnemar_lost"], gain["mcnemar_gained"]) == (1, 1)  # s2 lost, s1 gained
    loss = _find(found["before_after"], defense="none", attack="fgsm")
    assert (loss["clean_mean"], loss["attacked_mean"], loss["mcnemar_lost"]) == (0.75, 0.25, 2)
    assert loss["mcnemar_p"] == 0.5


def test_missing_adaptive_attack_is_told_not_guessed():
    table = _transfer_table()
    table = table[~((table["defense"] == "jpeg") & (table["source"] == "jpeg") & (table["attack"] == "fgsm"))]
    found = _analysed(table)
    moved = _find(found["transfer"], defense="jpeg")
    assert (moved["recovered_mean"], moved["adaptive_mean"], moved["adaptive_n_trials"]) == (1.0, None, 0)
    assert found["versus_undefended"] == []
    assert any("nothing is known of an attacker who adapts" in each for each in found["warnings"])


@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials_keep_every_key(trials, found):
    few = _analysed(drawn(trials=trials, samples=30, defenses=("none", "jpeg")))
    for section in SECTIONS:
        assert list(few[section][0]) == list(found[section][0])
    assert any(each.startswith(("1 trial was run", "Only 2 trials")) for each in few["warnings"])
    if trials == 1:
        assert {each["p"] for each in few["before_after"]} == {None}
        assert all(each["reason"] for each in few["before_after"])
        assert all(each["mcnemar_p"] is not None for each in few["before_after"])
        accuracy = _find(few["summary"], defense="none", attack="pgd", metric="accuracy")
        assert (accuracy["ci_low"], accuracy["sd"]) == (None, None)
        assert accuracy["pooled_ci_low"] is not None


def test_a_model_that_falls_entirely_is_not_certain():
    table = drawn(trials=3, samples=40)
    fallen = (table["defense"] == "none") & (table["attack"] == "pgd")
    table.loc[fallen, "adversarial_prediction"] = 1 - table.loc[fallen, "label"]
    table.loc[fallen, "won"] = True
    found = _analysed(table)
    accuracy = _find(found["summary"], defense="none", source="none", attack="pgd", metric="accuracy")
    assert (accuracy["mean"], accuracy["ci_high"]) == (0.0, None)
    assert accuracy["pooled_ci_high"] == pytest.approx(1 - 0.025 ** (1 / 40))
    assert accuracy["pooled_method"].startswith("Clopper-Pearson")
    across = _find(found["across_defenses"], attack="pgd")
    assert across["method"] == "friedman+holm"


def test_warnings_follow_from_the_table(found):
    text = " ".join(found["warnings"])
    assert "Only 5 trials were run: the smallest two-sided p value of the Wilcoxon test is 0.0625" in text
    assert "the same 60 test samples" in text
    assert "60 test samples come from 30 patients" in text
    assert "Subgroups with fewer" not in text or "site" in text
    lone = drawn(trials=1, samples=40)
    assert not any("come from" in each for each in _analysed(lone)["warnings"])


def test_warnings_tell_what_is_incomplete():
    table = drawn(trials=2, samples=40)
    jpeg_pgd = (table["defense"] == "jpeg") & (table["source"] == "jpeg") & (table["attack"] == "pgd")
    text = " ".join(_analysed(table[~jpeg_pgd])["warnings"])
    assert "worst case of m with defence jpeg under linf 8/255 lacks pgd" in text
    survivors = table[~(jpeg_pgd & (table["sample_id"] < "s2"))]
    assert "Fewer samples were attacked" in " ".join(_analysed(survivors)["warnings"])
    one_trial = table[~(jpeg_pgd & (table["trial"] == 1))]
    assert "Not every trial is there" in " ".join(_analysed(one_trial)["warnings"])
    no_clean = table[~((table["defense"] == "jpeg") & (table["attack"] == "none"))]
    assert "Clean rows are missing" in " ".join(_analysed(no_clean)["warnings"])
    odd = table.copy()
    at = odd.index[(odd["attack"] == "fgsm") & (odd["source"] == odd["defense"]) & ~odd["won"]][:3]
    odd.loc[at, "won"] = True
    assert "rows count as won by the attack although" in " ".join(_analysed(odd)["warnings"])


def test_fresh_splits_are_told_apart_from_a_fixed_test_set():
    table = drawn(trials=2, samples=40)
    disjoint = table.assign(
        sample_id=table["sample_id"] + "-" + table["trial"].astype(str),
        patient_id=table["patient_id"] + "-" + table["trial"].astype(str),
    )
    text = " ".join(_analysed(disjoint)["warnings"])
    assert "same" not in text
    assert "overlap" not in text
    overlapping = table[~((table["trial"] == 1) & (table["sample_id"] == "s3"))]
    assert "test sets overlap" in " ".join(_analysed(overlapping)["warnings"])


def test_nothing_at_all():
    table = drawn(trials=1).iloc[:0]
    found = _analysed(table)
    assert all(found[section] == [] for section in SECTIONS)


def test_alpha_is_checked(table):
    with pytest.raises(ValueError, match=r"alpha = 1\.5"):
        _analysed(table, alpha=1.5)


def test_plain_leaves_no_numpy():
    given = {"a": np.float64("nan"), "b": (np.int64(3), np.array([1]) == 1), "c": pd.NA, "d": float("inf"), "e": "x"}
    assert plain(given) == {"a": None, "b": [3, [True]], "c": None, "d": None, "e": "x"}
    assert type(plain(np.int64(3))) is int


def test_torch_is_never_imported():
    code = "import sys, titer.stats.protocol, titer.stats.tables; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
