"""Letters for what no test told apart, and the order of defences."""

import itertools
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titer.stats import tables
from titer.stats.letters import compact_letters
from titer.stats.protocol import analyse

from .frames import ATTACKED, frame, row

NAMES = list(string.ascii_uppercase[:7])


def _pairs(*names):
    return [frozenset(pair) for pair in names]


@pytest.mark.parametrize(
    ("different", "letters"),
    [
        ([], {"A": "a", "B": "a", "C": "a"}),
        (["AB", "AC", "BC"], {"A": "a", "B": "b", "C": "c"}),
        (["AC"], {"A": "a", "B": "ab", "C": "b"}),
        (["AB", "AC"], {"A": "a", "B": "b", "C": "b"}),
        (["AB"], {"A": "a", "B": "b", "C": "ab"}),
    ],
)
def test_letters_of_three_are_the_textbook_s(different, letters):
    assert compact_letters("ABC", _pairs(*different)) == letters


@given(st.sets(st.sampled_from(list(itertools.combinations(NAMES, 2)))))
def test_two_share_a_letter_exactly_if_they_do_not_differ(drawn):
    different = {frozenset(pair) for pair in drawn}
    letters = compact_letters(NAMES, sorted(different, key=sorted))
    assert "a" in letters["A"]
    assert all(letters.values())
    for one, other in itertools.combinations(NAMES, 2):
        assert bool(set(letters[one]) & set(letters[other])) == (frozenset((one, other)) not in different)


def _run(right, trials=3, patients=60):
    """Return statistics of a run in which `right` gives each defence's share of rows that stay right, by trial."""
    rows = []
    for trial in range(trials):
        for defense, share in right.items():
            for i in range(patients):
                kept = i < round(share[trial] * patients)
                common = {"label": 1, "clean": 1, "trial": trial, "defense": defense, "source": defense}
                rows.append(row(f"s{i}", **common))
                rows.append(row(f"s{i}", **common, adversarial=int(kept), attack="pgd", **ATTACKED))
    table = frame(rows)
    return analyse(table, tables.metrics(table, positive=1, classes=2))["ranking"]


def _worst(found):
    return next(one for one in found if one["attack"] == "worst-case")


def test_patients_tell_apart_what_three_constant_trials_cannot():
    found = _worst(_run({"none": [0.0] * 3, "strong": [0.8] * 3, "same": [0.8] * 3, "middle": [0.4] * 3}))
    assert found["test"].startswith("McNemar")
    assert [one["defense"] for one in found["order"]] == ["strong", "same", "middle", "none"]
    assert [one["letters"] for one in found["order"]] == ["a", "a", "b", "c"]
    assert found["order"][0]["mean"] == pytest.approx(0.8)


def test_trials_that_disagree_tell_nothing_apart():
    """One trial far above and two far below: no patient test may call that a difference."""
    found = _worst(_run({"one": [0.9, 0.1, 0.1], "other": [0.1, 0.9, 0.9], "none": [0.0, 0.0, 0.0]}))
    letters = {one["defense"]: one["letters"] for one in found["order"]}
    assert set(letters["one"]) & set(letters["other"])


def test_many_usual_trials_are_ranked_by_tukey():
    rng = np.random.default_rng(0)
    shares = {name: np.clip(mean + rng.normal(0, 0.03, 8), 0, 1) for name, mean in (("none", 0.2), ("at", 0.7))}
    shares |= {"twin": rng.permutation(shares["at"])}
    found = _worst(_run(shares, trials=8, patients=200))
    letters = {one["defense"]: one["letters"] for one in found["order"]}
    assert found["test"].startswith("Tukey")
    assert letters["at"] == letters["twin"] == "a"
    assert letters["none"] == "b"


def test_clean_rows_are_ranked_too():
    found = _run({"none": [0.0] * 3, "at": [0.5] * 3})
    clean = next(one for one in found if one["attack"] == "none")
    assert {one["letters"] for one in clean["order"]} == {"a"}
