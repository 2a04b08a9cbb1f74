"""The feature map: form, repeatability, neighbourhoods kept, too little data."""

import numpy as np
import pytest

from titer.core.errors import Incompatible
from titer.stats.feature_map import feature_map


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
