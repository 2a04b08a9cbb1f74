"""Rows on which a goal makes no sense are not at stake; outputs that are no class are measured by their error."""

import numpy as np
import pandas as pd
import pytest

from titer.stats import tables
from titer.stats.protocol import analyse

from .frames import ATTACKED, drawn, frame, row

GRADED = {"clean_error": 0.5, "adversarial_error": 0.5, "adversarial_probabilities": None}


def _cell(attack, rows, **changes):
    """Rows given as (label, clean, adversarial, eligible, won)."""
    return [
        row(
            f"s{i}", label=label, clean=clean, adversarial=adversarial, eligible=eligible, won=won,
            attack=attack, **ATTACKED, **changes,
        )
        for i, (label, clean, adversarial, eligible, won) in enumerate(rows)
    ]  # fmt: skip


def _hidden():
    """Class 1 is to be hidden. s0 falls, s1 holds, s2 was missed already, s3 and s4 have no finding."""
    truth = [(1, 1), (1, 1), (1, 0), (0, 0), (0, 1)]
    clean = [row(f"s{i}", label=y, clean=c, eligible=True, goal="any-error") for i, (y, c) in enumerate(truth)]
    attacked = [(1, 1, 0, True, True), (1, 1, 1, True, False), (1, 0, 0, True, True)]
    # what the harness never does: rows without the finding that count as won
    attacked += [(0, 0, 1, False, True), (0, 1, 1, False, True)]
    return frame([*clean, *_cell("pgd", attacked, goal="hide:ill"), *_cell("fgsm", attacked[:2], goal="hide:ill")])


def _of(table, **keys):
    found = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_success_counts_only_rows_that_were_right_and_at_stake():
    found = tables.metrics(_hidden(), positive=1, classes=2)
    pgd = _of(found, attack="pgd", value="all")
    assert (pgd["goal"], pgd["n"], pgd["n_eligible"]) == ("hide:ill", 5, 3)
    assert pgd["attack_success_rate"] == 0.5  # s0 of s0 and s1
    assert _of(found, attack="none", value="all")["n_eligible"] == 5
    assert pgd["sensitivity"] == pytest.approx(1 / 3)


def test_the_worst_case_never_wins_a_row_that_is_not_at_stake():
    table = _hidden()
    worst = tables.worst_case(table).set_index("sample_id")
    assert worst["won"].to_dict() == {"s0": True, "s1": False, "s2": True, "s3": False, "s4": False}
    assert sorted(worst.reset_index().columns) == sorted(table.columns)
    found = _of(tables.metrics(table, positive=1, classes=2), attack="worst-case", value="all")
    assert (found["goal"], found["n_eligible"], found["attack_success_rate"]) == ("hide:ill", 3, 0.5)


def test_nothing_at_stake_has_no_success_rate():
    table = _hidden().assign(eligible=False)
    found = tables.metrics(table, positive=1, classes=2)
    assert found["attack_success_rate"].isna().all()
    assert (found["n_eligible"] == 0).all()
    assert found["accuracy"].notna().all()


def test_the_pooled_interval_covers_the_same_rows():
    table = pd.concat([_hidden().assign(trial=trial) for trial in range(2)], ignore_index=True)
    found = analyse(table, tables.metrics(table, positive=1, classes=2))
    success = [
        each for each in found["summary"] if each["metric"] == "attack_success_rate" and each["attack"] == "worst-case"
    ]
    assert [(each["mean"], each["goal"]) for each in success] == [(0.5, "hide:ill")]
    assert success[0]["pooled_ci_low"] < 0.5 < success[0]["pooled_ci_high"] < 1


def test_tables_without_the_newer_columns_mean_any_error_on_every_row():
    table = drawn(trials=2)
    explicit = table.assign(goal="any-error", eligible=True, clean_error=np.nan, adversarial_error=np.nan)
    expected, found = (tables.metrics(each, positive=1, classes=2) for each in (explicit, table))
    pd.testing.assert_frame_equal(found, expected)
    half = explicit.astype({"eligible": object})
    half.loc[half.index[::2], ["goal", "eligible"]] = None  # cells of an older version beside newer ones
    pd.testing.assert_frame_equal(tables.metrics(half, positive=1, classes=2), expected)
    assert list(tables.completed(table)["goal"].unique()) == ["any-error"]


def test_median_queries_are_those_of_the_rows_that_were_fooled():
    rows = [(1, 1, 0, True, True), (1, 1, 0, True, True), (1, 1, 1, True, False), (1, 0, 0, True, True)]
    cells = [row(f"s{i}", label=y, clean=c) for i, (y, c, *_) in enumerate(rows)]
    for attack, backwards, source in (("square", 0, "none"), ("pgd", 1, "none"), ("square", 0, "surrogate: other")):
        made = _cell(attack, rows, source=source)
        cells += [
            each | {"forwards": 10.0 * 3**i, "backwards": float(backwards * (i == 0))} for i, each in enumerate(made)
        ]
    found = tables.metrics(frame(cells), positive=1, classes=2)
    whole = found[found["group"] == "all"].set_index(["attack", "source"])["median_queries"]
    assert whole["square", "none"] == 20  # 10 and 30
    # one backward pass in the cell is enough; queries to another model are none to this one; a union has no count
    assert whole.drop(("square", "none")).isna().all()


def _graded():
    clean = [row(f"s{i}", label=0, clean=int(i == 2), **GRADED | {"clean_error": e, "adversarial_error": e})
             for i, e in enumerate([1.0, 2.0, 9.0])]  # fmt: skip
    cells = []
    for attack, errors in (("pgd", [7.0, 3.0, 9.0]), ("fgsm", [2.0, 4.0, 9.5])):
        for i, error in enumerate(errors):
            fallen = int(error > 5)
            changes = GRADED | {"clean_error": [1.0, 2.0, 9.0][i], "adversarial_error": error}
            cells.append(
                row(f"s{i}", label=0, clean=int(i == 2), adversarial=fallen, attack=attack, **ATTACKED, **changes)
            )
    return frame([*clean, *cells])


def test_outputs_that_are_no_class_have_errors_and_no_rates():
    found = tables.metrics(_graded(), positive=None, classes=0)
    clean, pgd, worst = (_of(found, attack=name, value="all") for name in ("none", "pgd", "worst-case"))
    assert (clean["accuracy"], clean["clean_error"]) == (pytest.approx(2 / 3), 4.0)
    assert (pgd["clean_error"], pgd["adversarial_error"]) == (4.0, pytest.approx(19 / 3))
    assert pgd["attack_success_rate"] == 0.5
    # s0 fell to pgd; of the rows that hold, the attack with the larger error stands; s2 was lost before: the first
    assert worst["adversarial_error"] == pytest.approx((7 + 4 + 9) / 3)
    names = ["balanced_accuracy", "auroc", "sensitivity", "specificity", "fpr", "fnr", "ece"]
    assert found[names].isna().all(axis=None)
    assert found["n_positive"].isna().all()


def test_errors_stand_in_the_summary_and_nobody_warns_of_absent_classes():
    table = pd.concat([_graded().assign(trial=trial) for trial in range(3)], ignore_index=True)
    table["adversarial_error"] *= 1 + table["trial"] / 10
    found = analyse(table, tables.metrics(table, positive=None, classes=0))
    rows = {(each["attack"], each["metric"]): each for each in found["summary"] if each["source"] == "none"}
    error = rows["worst-case", "adversarial_error"]
    assert error["mean"] > 1
    assert error["ci_low"] < error["mean"] < error["ci_high"]
    assert not any("lack a class" in warning for warning in found["warnings"])


def test_an_error_that_is_not_known_is_left_out_of_the_mean():
    table = _graded()
    table.loc[table["sample_id"] == "s2", ["clean_error", "adversarial_error"]] = np.nan
    found = tables.metrics(table, positive=None, classes=0)
    assert _of(found, attack="pgd", value="all")["adversarial_error"] == 5.0


def test_distances_are_read_in_any_norm_that_has_a_column():
    cell = [*_cell("jsma", [(1, 1, 0, True, True)]), row("s0", label=1, clean=1)]
    table = frame(cell).assign(distance_l0=3.0)
    table.loc[table["attack"] == "jsma", "norm"] = "l0"
    assert _of(tables.metrics(table, positive=1, classes=2), attack="jsma", value="all")["median_distance"] == 3.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.assign(goal=[f"goal {i % 2}" for i in range(len(t))]), "several goals under linf 8/255: allowed"),
        (lambda t: t.assign(label=t["label"] + 0.5), "other values than whole numbers in label"),
    ],
)
def test_a_mixed_table_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        tables.metrics(change(_hidden()), positive=1, classes=2)


def test_before_and_after_a_goal_are_of_the_same_rows():
    table = _hidden()
    found = analyse(table, tables.metrics(table, positive=1, classes=2))["before_after"]
    means = {each["attack"]: (each["clean_mean"], each["attacked_mean"]) for each in found}
    # right when clean: s0, s1 and s3 of the five rows that pgd attacked, both of the two that fgsm did
    assert means["pgd"] == (0.6, 0.2)
    assert means["fgsm"] == (1.0, 0.5)
