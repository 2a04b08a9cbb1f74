"""The feature map: form, repeatability, neighbourhoods kept, too little data."""

import numpy as np
import pytest

from titer.core.errors import Incompatible
from titer.stats.feature_map import feature_map, neighbours_alike


def test_it_keeps_groups_apart_and_repeats():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(size=(30, 60)), rng.normal(size=(20, 60)) + 8
    placed = feature_map(clean, attacked, seed=1)
    assert placed.clean.shape == (30, 2)
    assert placed.attacked.shape == (20, 2)
    between = np.linalg.norm(placed.clean.mean(0) - placed.attacked.mean(0))
    assert between > np.linalg.norm(placed.clean - placed.clean.mean(0), axis=1).mean()
    assert np.array_equal(feature_map(clean, attacked, seed=1).clean, placed.clean)


def test_what_cannot_be_laid_out_says_so():
    with pytest.raises(Incompatible, match="5 rows or more"):
        feature_map(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(Incompatible, match="features"):
        feature_map(np.zeros((9, 3)), np.zeros((9, 4)))


def test_neighbours_are_counted_in_the_features_and_never_the_row_itself():
    clean, labels = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]]), np.array([0, 0, 0, 1, 1])
    own = np.arange(5)
    assert neighbours_alike(clean, clean, labels, own, count=1).tolist() == [1, 1, 1, 1, 1]
    assert neighbours_alike(clean, clean, labels, own, count=2).tolist() == [1, 1, 1, 0.5, 0.5]
    moved = np.array([[10.4], [0.0]])  # a row of class 0 among those of class 1, and one of class 1 among class 0
    assert neighbours_alike(moved, clean, labels, [0, 4], count=2).tolist() == [0, 0]
    assert neighbours_alike(clean, clean, labels, own, count=99).tolist() == [0.5, 0.5, 0.5, 0.25, 0.25]


def test_a_lone_row_has_no_neighbours():
    assert np.isnan(neighbours_alike([[1.0]], [[1.0]], [0], [0])).all()
