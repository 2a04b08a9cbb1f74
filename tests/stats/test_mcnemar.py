import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats import contingency_tables

from titer.stats.mcnemar import mcnemar


def _verdicts(both, lost, gained, neither):
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return np.array(before), np.array(after)


def test_presidential_approval():
    # Agresti 1990, p. 350: 794 / 150 / 86 / 570: (150 - 86)^2 / (150 + 86) = 17.36, p = 3.1e-5
    found = mcnemar(*_verdicts(794, 150, 86, 570))
    assert (found.n, found.lost, found.gained) == (1600, 150, 86)
    assert (found.statistic, found.p) == (pytest.approx(17.3559, abs=1e-4), pytest.approx(3.099e-5, rel=1e-3))
    assert found.test == "McNemar chi-squared"


@pytest.mark.parametrize(("lost", "gained"), [(9, 1), (0, 5), (12, 12), (24, 0)])
def test_few_discordant_samples_are_exact(lost, gained):
    found = mcnemar(*_verdicts(30, lost, gained, 4))
    assert found.test == "McNemar exact"
    assert found.p == pytest.approx(binomtest(lost, lost + gained).pvalue)


def test_nothing_discordant_and_nothing_at_all():
    assert mcnemar([True, False], [True, False]).p == 1.0
    assert np.isnan(mcnemar([], []).p)


def test_one_sample_a_patient_is_plain_mcnemar():
    before, after = _verdicts(40, 20, 8, 10)
    assert mcnemar(before, after, np.arange(78)) == mcnemar(before, after)


def test_copies_of_a_patients_images_add_no_evidence():
    before, after = _verdicts(20, 9, 2, 5)
    plain = mcnemar(before, after)
    copied = mcnemar(np.repeat(before, 4), np.repeat(after, 4), np.repeat(np.arange(36), 4))
    assert copied.p == pytest.approx(plain.p)
    assert mcnemar(np.repeat(before, 4), np.repeat(after, 4)).p < plain.p / 50
    assert (copied.lost, copied.gained) == (36, 8)
    many = _verdicts(10, 40, 20, 5)
    large = mcnemar(np.repeat(many[0], 2), np.repeat(many[1], 2), np.repeat(np.arange(75), 2))
    assert "modified Obuchowski" in large.test
    assert large.statistic == pytest.approx(mcnemar(*many).statistic)


def test_sign_flips_by_brute_force():
    # patients lose 3, 1, 2 and gain 1 samples: every sign pattern counted
    change = [3, 1, 2, -1]
    before = np.concatenate([[c > 0] * abs(c) for c in change])
    patients = np.concatenate([[i] * abs(c) for i, c in enumerate(change)])
    sums = [
        sum(s * abs(c) for s, c in zip(signs, change, strict=True)) for signs in itertools.product((-1, 1), repeat=4)
    ]
    expected = np.mean(np.abs(sums) >= abs(sum(change)))
    assert mcnemar(before, ~before, patients).p == pytest.approx(expected)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="after has shape"):
        mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="clusters has shape"):
        mcnemar([True, False], [True, False], ["a"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_agrees_with_statsmodels(lost, gained):
    theirs = contingency_tables.mcnemar([[5, lost], [gained, 5]], exact=lost + gained < 25, correction=False)
    assert mcnemar(*_verdicts(5, lost, gained, 5)).p == pytest.approx(min(1, theirs.pvalue))
