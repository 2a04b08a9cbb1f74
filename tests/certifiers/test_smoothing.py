"""Randomised smoothing: Clopper and Pearson's interval, the radius of the closed form, and abstention in doubt."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from titer.certifiers.smoothing import lower_bound
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_certifier
from titer.engine.smoothing import Contrast, Smoothed

SIGMA = 0.5


def _certify(model, x, threat, seed=0, **settings):
    spec = {"name": "smoothing", "sigma": SIGMA, "draws": 2000, **settings}
    return make_certifier(spec)(model, x, threat, rng=torch.Generator().manual_seed(seed))


@given(st.integers(1, 3000), st.floats(0.0, 1.0), st.floats(1e-4, 0.2))
@hypothesis_settings(max_examples=60)
def test_the_lower_bound_is_clopper_and_pearsons(draws, share, alpha):
    count = round(share * draws)
    truth = binomtest(count, draws, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    assert math.isclose(float(lower_bound(np.array([count]), draws, alpha)[0]), truth, abs_tol=1e-9)


def test_the_radius_is_the_closed_form_of_a_linear_model(linear_model, free_threat):
    weights = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.0, 1.0]])
    model, scale = linear_model(weights, torch.tensor([0.1, 0.0])), torch.tensor([0.5, 1.0, 2.0])
    x = 0.6 * torch.randn((40, 3), generator=torch.Generator().manual_seed(0))
    threat = free_threat("l2", 100.0, scale)
    # Under noise the lead is normal: the distance to the plane, in the threat's units, is the radius.
    lead = model.logits(x)[:, 0] - model.logits(x)[:, 1]
    distance = (lead / torch.linalg.vector_norm((weights[0] - weights[1]) * scale)).double()
    found = _certify(model, x, threat, draws=20_000)
    given = found.prediction >= 0
    assert torch.equal(found.prediction[given], torch.where(distance > 0, 0, 1)[given])
    assert bool((found.radius <= distance.abs() + 1e-6).all()), "never above the truth, at this seed"
    sure = (distance.abs() > 0.15) & (distance.abs() < 2 * SIGMA)
    share = lower_bound(norm.cdf(distance.abs().numpy() / SIGMA) * 20_000, 20_000, 0.001)
    expected = torch.from_numpy(SIGMA * norm.ppf(share)).clamp_min(0.0)
    assert torch.allclose(found.radius[sure].double(), expected[sure], atol=0.04)
    assert int(given.sum()) > 25
    assert not bool(given.all()), "rows on the plane abstain"


def test_certificates_are_wrong_no_more_often_than_alpha(linear_model, free_threat):
    model = linear_model(torch.tensor([[1.0], [0.0]]))
    x = torch.full((400, 1), 0.3)
    found = _certify(model, x, free_threat("l2", 100.0), draws=200, alpha=0.05)
    wrong = int((found.radius > 0.3).sum())
    assert binomtest(wrong, 400, 0.05, alternative="greater").pvalue > 1e-3
    assert wrong > 0, "a bound that is never wrong at alpha = 0.05 is not the tight one"
    assert found.confidence == 0.95


def test_what_is_in_doubt_is_abstained_from(linear_model, free_threat):
    model = linear_model(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    found = _certify(model, torch.tensor([[1.0, 1.0], [9.0, 1.0]]), free_threat("l2", 100.0))
    assert found.prediction.tolist() == [-1, 0]
    assert float(found.radius[0]) == 0.0
    assert math.isclose(float(found.radius[1]), SIGMA * norm.ppf(0.001 ** (1 / 2000)), rel_tol=1e-5)


def test_a_radius_is_no_longer_than_the_threat(linear_model, free_threat):
    model = linear_model(torch.tensor([[1.0], [0.0]]))
    assert float(_certify(model, torch.tensor([[9.0]]), free_threat("l2", 0.2)).radius) == pytest.approx(0.2)


def test_batches_change_nothing_but_the_memory(linear_model, free_threat):
    model, x = linear_model(torch.tensor([[1.0], [0.0]])), torch.tensor([[0.3], [-0.4]])
    seen = []
    counted = replace(model, logits=lambda rows: seen.append(len(rows)) or model.logits(rows))
    whole = _certify(model, x, free_threat("l2", 9.0), batch=5000)
    parts = _certify(counted, x, free_threat("l2", 9.0), batch=300)
    assert torch.equal(whole.prediction, parts.prediction)
    assert torch.allclose(whole.radius, parts.radius, atol=0.08)
    assert max(seen) == 300
    assert sum(seen) == 2 * 2100


def _smoothed(model, **fields):
    draw = Smoothed(base=model.logits, sigma=torch.tensor(0.25), draws=4, **fields)
    return replace(model, logits=draw(torch.Generator()), draw=draw, rebuild=None)


def test_a_smoothed_model_is_certified_by_its_base_and_its_own_noise(linear_model, free_threat):
    model, x = linear_model(torch.tensor([[1.0], [0.0]])), torch.tensor([[9.0]])
    most = norm.ppf(0.001 ** (1 / 2000))
    own = _certify(_smoothed(model), x, free_threat("l2", 9.0, scale=0.1), sigma=None)
    assert float(own.radius) == pytest.approx(2.5 * most, rel=1e-5), "0.25 in raw values is 2.5 of a unit of 0.1"
    other = _certify(_smoothed(model), x, free_threat("l2", 9.0, scale=0.1), sigma=1.0)
    assert float(other.radius) == pytest.approx(most, rel=1e-5)


def test_noise_that_cannot_be_certified_is_refused(linear_model, free_threat):
    model, x = linear_model(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), torch.rand(2, 2)
    threat = free_threat("l2", 1.0)
    with pytest.raises(Incompatible, match="noise follows the image"):
        _certify(_smoothed(model, contrast=Contrast(usual=1.0)), x, threat, sigma=None)
    with pytest.raises(Incompatible, match="not the same in every value"):
        _certify(_smoothed(model), x, free_threat("l2", 1.0, scale=torch.tensor([1.0, 2.0])), sigma=None)
    with pytest.raises(Incompatible, match="is not smoothed: set sigma"):
        _certify(model, x, threat, sigma=None)


def test_no_weights_are_needed(free_threat):
    remote = Model(name="remote", logits=lambda x: torch.stack([x[:, 0] > 0.5, x[:, 0] <= 0.5], 1).float())
    found = _certify(remote.limited("decision"), torch.tensor([[3.0], [-2.0]]), free_threat("l2", 9.0))
    assert found.prediction.tolist() == [0, 1]
