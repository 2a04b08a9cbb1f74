import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from titer.stats import tables

from .frames import ATTACKED, drawn, frame, row


def _hand_made():
    """Four samples, two attacks. s0 falls to both, s1 to pgd only, s2 to none, s3 is wrong when clean."""
    clean = [
        row("s0", label=1, clean=1), row("s1", label=0, clean=0, **{"group:sex": "M"}),
        row("s2", label=1, clean=1, **{"group:sex": "M"}), row("s3", label=0, clean=1),
    ]  # fmt: skip

    def attack(name, access, predictions, chances, distances):
        given = [(1, 1, "F"), (0, 0, "M"), (1, 1, "M"), (0, 1, "F")]
        return [
            row(
                f"s{i}", label=label, clean=was, adversarial=predictions[i], p_true=chances[i], attack=name,
                access=access, distance_linf=distances[i], distance_l2=99.0, forwards=10.0 * (i + 1),
                put_back=i == 2, **{"group:sex": sex}, **ATTACKED,
            )
            for i, (label, was, sex) in enumerate(given)
        ]  # fmt: skip

    fgsm = attack("fgsm", "scores", [0, 0, 1, 1], [0.3, 0.7, 0.8, 0.1], [8.0, 8.0, 8.0, 0.0])
    pgd = attack("pgd", "gradient", [0, 1, 1, 1], [0.2, 0.4, 0.6, 0.1], [5.0, 6.0, 7.0, 0.0])
    return frame([*clean, *fgsm, *pgd])


def _row_of(table, **keys):
    found = table
    for key, value in keys.items():
        found = found[found[key] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_worst_case_takes_the_first_winner_else_the_least_sure():
    worst = tables.worst_case(_hand_made())
    assert list(worst["sample_id"]) == ["s0", "s1", "s2", "s3"]
    assert list(worst["won"]) == [True, True, False, True]
    # s0: fgsm won first though pgd went deeper; s1: pgd; s2: pgd left less of the truth; s3: both, so fgsm
    assert list(worst["distance_linf"]) == [8.0, 6.0, 7.0, 0.0]
    assert set(worst["attack"]) == {"worst-case"}
    assert set(worst["access"]) == {"gradient"}
    assert list(worst.columns) == list(_hand_made().columns)


def test_worst_case_chooses_unknown_probabilities_last_and_ties_by_order():
    table = _hand_made()
    at = table.index[(table["sample_id"] == "s2") & (table["attack"] == "pgd")][0]
    table.at[at, "adversarial_probabilities"] = None  # noqa: PD008 - loc cannot set a list
    assert tables.worst_case(table).iloc[2]["distance_linf"] == 8.0
    table.at[at, "adversarial_probabilities"] = [0.2, 0.8]  # noqa: PD008
    assert tables.worst_case(table).iloc[2]["distance_linf"] == 8.0


def test_metrics_by_hand():
    found = tables.metrics(_hand_made(), positive=1, classes=2)
    assert list(found.columns) == tables.COLUMNS
    assert list(found["attack"].unique()) == ["none", "fgsm", "pgd", "worst-case"]
    assert list(found["value"][:3]) == ["all", "F", "M"]
    clean = _row_of(found, attack="none", value="all")
    assert (clean["n"], clean["n_positive"], clean["accuracy"]) == (4, 2, 0.75)
    assert (clean["sensitivity"], clean["specificity"], clean["fpr"], clean["fnr"]) == (1.0, 0.5, 0.5, 0.0)
    assert np.isnan(clean["attack_success_rate"])
    assert np.isnan(clean["median_distance"])
    pgd = _row_of(found, attack="pgd", value="all")
    assert (pgd["accuracy"], pgd["balanced_accuracy"], pgd["sensitivity"], pgd["specificity"]) == (0.25, 0.25, 0.5, 0)
    assert pgd["attack_success_rate"] == pytest.approx(2 / 3)  # s3 was wrong already
    assert pgd["median_distance"] == 5.5  # s0 and s1, in the threat's own norm
    assert (pgd["put_back_share"], pgd["mean_forwards"]) == (0.25, 25.0)
    assert pgd["auroc"] == roc_auc_score([1, 0, 1, 0], [0.2, 0.6, 0.6, 0.9])
    # confidences of the predicted class .8 (wrong), .6 (wrong), .6 (right), .9 (wrong): bins .8, .6, .9
    assert pgd["ece"] == pytest.approx((0.8 + abs(1 - 1.2) + 0.9) / 4)
    worst = _row_of(found, attack="worst-case", value="all")
    assert (worst["accuracy"], worst["access"], worst["source"]) == (0.25, "gradient", "none")
    assert worst["attack_success_rate"] == pytest.approx(2 / 3)
    assert worst["median_distance"] == 7.0


def test_subgroups_leave_undefined_what_they_cannot_say():
    found = tables.metrics(_hand_made(), positive=1, classes=2)
    women = _row_of(found, attack="fgsm", group="sex", value="F")
    assert (women["n"], women["n_positive"], women["attack_success_rate"]) == (2, 1, 1.0)
    only_ill = _hand_made()
    only_ill["group:site"] = np.where(only_ill["label"] == 1, "A", None)
    found = tables.metrics(only_ill, positive=1, classes=2)
    site = _row_of(found, attack="pgd", group="site", value="A")
    assert np.isnan(site[["specificity", "fpr", "balanced_accuracy", "auroc"]].astype(float)).all()
    assert site["sensitivity"] == 0.5
    assert "unknown" in set(found["value"])
    wrong = only_ill[only_ill["sample_id"] == "s3"]
    assert tables.metrics(wrong, positive=1, classes=2)["attack_success_rate"].isna().all()


def test_many_classes_are_macro_and_have_no_positives():
    table = _hand_made()
    for name in ("clean_probabilities", "adversarial_probabilities"):
        table[name] = [[*pair, 0.0] for pair in table[name]]
    found = tables.metrics(table, positive=1, classes=3)
    assert found["n_positive"].isna().all()
    assert found["sensitivity"].isna().all()  # nobody has class 2
    macro = tables.metrics(_hand_made(), positive=None, classes=2)
    assert _row_of(macro, attack="none", value="all")["sensitivity"] == 0.75


def test_worst_case_leaves_transferred_inputs_out():
    table = drawn()
    worst = tables.worst_case(table)
    assert (worst["source"] == worst["defense"]).all()
    assert len(worst) == 3 * 2 * 40
    assert tables.worst_case(table[table["attack"] == "none"]).empty


def test_arguments_are_not_changed_and_nothing_gives_nothing():
    table = drawn(trials=1)
    before = table.copy(deep=True)
    tables.metrics(table, positive=1, classes=2)
    pd.testing.assert_frame_equal(table, before)
    empty = tables.metrics(table.iloc[:0], positive=1, classes=2)
    assert empty.empty
    assert list(empty.columns) == tables.COLUMNS


def test_tables_survive_parquet(tmp_path):
    table = drawn(trials=2)
    table.to_parquet(tmp_path / "outcomes.parquet")
    again = pd.read_parquet(tmp_path / "outcomes.parquet")
    expected, found = (tables.metrics(each, positive=1, classes=2) for each in (table, again))
    pd.testing.assert_frame_equal(found, expected)
    found.to_parquet(tmp_path / "metrics.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "metrics.parquet"), found)


def test_categories_change_nothing():
    table = drawn(trials=2)
    table.loc[0, "group:sex"] = None
    names = [name for name in table.columns if table[name].map(type).eq(str).any()]
    compact = table.astype(dict.fromkeys(names, "category"))
    expected, found = (tables.metrics(each, positive=1, classes=2) for each in (table, compact))
    pd.testing.assert_frame_equal(found.astype(expected.dtypes), expected)
    worst = tables.worst_case(compact)
    assert set(worst["attack"]) == {"worst-case"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns="won"), "lacks the columns won"),
        (lambda t: t.assign(patient_id=None), "empty values in patient_id"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "sample_id twice in one cell"),
        (lambda t: t.assign(attack="worst-case"), "holds attack = 'worst-case'"),
        (lambda t: t.assign(label=2), "labels holds 2 to 2: allowed are classes 0 to 1"),
        (lambda t: t.assign(adversarial_probabilities=[[1.0]] * len(t)), "row of 1 values"),
    ],
)
def test_a_damaged_table_is_refused(change, says):
    table = change(_hand_made())
    with pytest.raises(ValueError, match=says):
        tables.metrics(table, positive=1, classes=2)


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="classes = 1"):
        tables.metrics(_hand_made(), positive=None, classes=1)
    with pytest.raises(ValueError, match="positive = 2"):
        tables.metrics(_hand_made(), positive=2, classes=2)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000))
def test_worst_case_is_never_above_an_attack_and_order_does_not_matter(seed):
    table = drawn(trials=1, samples=15, seed=seed)
    found = tables.metrics(table, positive=1, classes=2)
    whole = found[(found["group"] == "all") & (found["source"] == found["defense"]) & (found["attack"] != "none")]
    for _, cell in whole.groupby("defense"):
        worst = cell[cell["attack"] == "worst-case"].iloc[0]
        assert worst["accuracy"] <= cell["accuracy"].min()
        assert worst["attack_success_rate"] >= cell["attack_success_rate"].max()
    shuffled = table.sample(frac=1, random_state=seed)
    # the plan's order breaks ties between attacks, so it stays while the samples move
    shuffled = shuffled.sort_values(
        "attack", key=lambda names: names.map({"none": 0, "fgsm": 1, "pgd": 2}), kind="stable"
    )
    again = tables.metrics(shuffled, positive=1, classes=2)
    keys = [*tables.CELL, "group", "value"]
    pd.testing.assert_frame_equal(
        again.sort_values(keys, ignore_index=True), found.sort_values(keys, ignore_index=True), check_exact=False
    )
