"""Searches for poisoned rows where it is known which they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from titer.assess.poisoning_measures import detected, removed
from titer.cleaners.activation_clustering import _nearness
from titer.cleaners.spectral_signatures import signature
from titer.cleaners.spectre import signature as robust_signature
from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import make_cleaner, make_poison
from titer.training.manifest import new_key, sign


def planted(count=500, poisoned=25, width=40, away=8.0, seed=0):
    """Features of one class, the first rows of which lie `away` standard deviations off along one direction."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn((count, width), generator=rng, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(width, generator=rng, dtype=torch.float64), dim=0)
    features[:poisoned] += away * direction
    marks = torch.zeros(count, dtype=torch.bool)
    marks[:poisoned] = True
    return features, marks


def test_a_planted_direction_is_found():
    features, marks = planted()
    scores = signature(features)
    assert detected(scores.numpy(), marks.numpy())["detection_rate"] == 1.0
    assert set(scores.argsort(descending=True)[:25].tolist()) == set(range(25))


def test_nothing_planted_is_found_as_often_as_chance_says():
    features, marks = planted(away=0.0)
    assert detected(signature(features).numpy(), marks.numpy())["detection_rate"] < 0.25


def test_signatures_do_not_depend_on_rotation_or_scale():
    features, _ = planted()
    turn = torch.linalg.qr(torch.randn((40, 40), generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    assert torch.allclose(signature(features), signature(3 * features @ turn + 5), rtol=1e-6)


def hidden(seed=0):
    """Features where the planted direction is not the one that varies most: a harmless one varies ten times as much."""
    features, marks = planted(away=6.0, seed=seed)
    across = torch.nn.functional.normalize(torch.randn(40, dtype=torch.float64), dim=0)
    return features + 10 * torch.randn((500, 1), dtype=torch.float64) * across, marks


def test_robust_whitening_finds_what_plain_signatures_miss():
    torch.manual_seed(0)
    features, marks = hidden()
    plain = detected(signature(features).numpy(), marks.numpy())["detection_rate"]
    robust = detected(robust_signature(features, 20, 0.1).numpy(), marks.numpy())["detection_rate"]
    assert plain < 0.3
    assert robust == 1.0


def test_robust_signatures_of_a_few_rows_or_of_none_that_vary_are_numbers():
    assert robust_signature(torch.ones(30, 5).double(), 20, 0.1).tolist() == [0.0] * 30
    assert bool(robust_signature(planted(count=9, poisoned=1)[0], 20, 0.1).isfinite().all())
    assert bool(robust_signature(torch.randn(3, 40).double(), 20, 0.1).isfinite().all())


def test_a_small_cluster_is_found():
    features, marks = planted(away=12.0)
    scores = _nearness(features.numpy(), 10, 0)
    assert detected(scores, marks.numpy())["detection_rate"] == 1.0
    assert (scores[marks.numpy()] > 0).all()


def test_features_that_never_vary_are_no_clusters():
    assert (_nearness(np.ones((30, 5)), 10, 0) == 0).all()


def test_the_loss_of_flipped_labels_is_high_and_that_is_what_low_calls_innocent(images):
    flip = make_poison({"name": "label-flip", "share": 0.1})
    found = flip(images.model, images.data, rng=torch.Generator().manual_seed(0))
    data = replace(images.data, train=found.samples)
    for suspicious, low, high in (("high", 0.8, 1.0), ("low", 0.0, 0.2)):
        search = make_cleaner({"name": "loss-filter", "suspicious": suspicious})
        scores = search(images.model, data, rng=torch.Generator().manual_seed(0)).numpy()
        assert low <= detected(scores, found.changed.numpy())["auroc"] <= high


def test_without_epochs_the_loss_is_the_models_own(images):
    search = make_cleaner({"name": "loss-filter", "epochs": 0})
    scores = search(images.model, images.data, rng=torch.Generator().manual_seed(0))
    part = images.data.train
    expected = torch.nn.functional.cross_entropy(images.model.logits(part.x), part.y, reduction="none")
    assert torch.allclose(scores, expected)


def test_the_manifest_tells_every_changed_row_and_no_other(images):
    pytest.importorskip("cryptography")
    collected = images.data.train
    backdoor = make_poison({"name": "backdoor", "share": 0.02, "labels": "clean"})
    found = backdoor(images.model, images.data, rng=torch.Generator().manual_seed(0))
    data = replace(images.data, train=found.samples, manifest=sign(collected, new_key()[0]))
    scores = make_cleaner("provenance-check")(images.model, data, rng=torch.Generator())
    assert torch.equal(scores.isinf(), found.changed)
    assert np.array_equal(removed(scores.numpy(), 0.001), found.changed.numpy()), "what is sure is left out whole"


def test_rows_that_were_added_are_not_in_the_manifest(images):
    pytest.importorskip("cryptography")
    part = images.data.train
    data = replace(images.data, manifest=sign(part.take(range(350)), new_key()[0]))
    scores = make_cleaner("provenance-check")(images.model, data, rng=torch.Generator())
    assert scores.isinf().nonzero().flatten().tolist() == list(range(350, 400))


def test_without_a_manifest_nothing_is_said(images):
    pytest.importorskip("cryptography")
    with pytest.raises(Incompatible, match="no signed manifest"):
        make_cleaner("provenance-check")(images.model, images.data, rng=torch.Generator())


def test_a_manifest_of_another_key_is_refused(images):
    pytest.importorskip("cryptography")
    signed = sign(images.data.train, new_key()[0])
    data = replace(images.data, manifest=replace(signed, key=new_key()[1]))
    with pytest.raises(SpecError, match="not of this key"):
        make_cleaner("provenance-check")(images.model, data, rng=torch.Generator())


def test_the_lowest_score_is_never_left_out():
    scores = np.array([0.0, 0.0, 0.0, 1.0, np.inf, np.inf])
    assert removed(scores, 0.9).tolist() == [False, False, False, True, True, True]
    assert removed(np.zeros(6), 0.5).tolist() == [False] * 6
    assert removed(np.arange(6.0), 0.34).tolist() == [False, False, False, False, True, True]


def test_detection_counts_no_more_false_alarms_than_it_says():
    rng = np.random.default_rng(0)
    scores, changed = rng.normal(size=2000), np.arange(2000) < 100
    scores[changed] += 10
    assert detected(scores, changed) == {"detection_rate": 1.0, "auroc": 1.0}
    assert detected(np.zeros(2000), changed)["detection_rate"] == 0.0, "ties are no alarms"
    assert np.isnan(detected(scores, np.zeros(2000, dtype=bool))["auroc"])
