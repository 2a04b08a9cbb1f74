"""What explanations are measured on: noise with the attack's own sizes, and the class that is asked about."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from titer.assess.explained_rows import _asked, unaimed
from titer.assess.explained_saliency import Explanations, measures
from titer.threats.balls import sizes
from titer.threats.goals import AnyError
from titer.threats.output_goals import OneFinding
from titer.threats.rules import whole_numbers


def changed(images, share: float = 0.3):
    """Return clean rows and rows with a change of at most 8 grey levels in some places."""
    rng = torch.Generator().manual_seed(0)
    x = images.test.x[:20]
    change = 8 * (2 * torch.rand(x.shape, generator=rng) - 1) * (torch.rand(x.shape, generator=rng) < share)
    return x, (x + change).clamp(0, 255)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_has_every_size_of_the_attack_but_not_its_places(images, image_threat):
    x, x_adv = changed(images)
    noisy = unaimed(x_adv, x, image_threat("linf", 8.0), rng=noise())
    for norm, size in sizes(noisy, x, torch.tensor(1.0)).items():
        assert torch.allclose(size, sizes(x_adv, x, torch.tensor(1.0))[norm], rtol=1e-3, atol=1e-3), norm
    assert not torch.equal(noisy, x_adv)
    moved, was = (noisy - x).flatten(1), (x_adv - x).flatten(1)
    likeness = torch.nn.functional.cosine_similarity(moved, was).abs()
    assert float(likeness.mean()) < 0.25
    assert torch.equal(unaimed(x_adv, x, image_threat("linf", 8.0), rng=noise()), noisy)


def test_noise_stays_where_the_threat_lets_it(images, image_threat):
    threat = image_threat("linf", 8.0, mask=True)
    x, x_adv = changed(images, share=1.0)
    x_adv = threat.project(x_adv, x)
    noisy = unaimed(x_adv, x, threat, rng=noise())
    assert bool(threat.contains(noisy, x).all())
    assert torch.equal(noisy[:, :, 4:], x[:, :, 4:])
    length = sizes(noisy, x, torch.tensor(1.0))["l2"] / sizes(x_adv, x, torch.tensor(1.0))["l2"]
    assert float(length.min()) > 0.9


def test_at_the_end_of_the_range_noise_turns_inwards(image_threat):
    x = torch.zeros(3, 1, 8, 8)
    x_adv = x + 8.0
    noisy = unaimed(x_adv, x, image_threat("linf", 8.0), rng=noise())
    assert torch.allclose(noisy, x_adv)  # every place has one way only, and all changes are of one size


def test_noise_keeps_the_rules_of_tables(tables, table_threat):
    threat = table_threat("linf", 0.5)
    x = tables.test.x[:30]
    x_adv = threat.project(x + 0.5 * threat.budget.scaled(x) * torch.randn(x.shape, generator=noise(1)), x)
    noisy = unaimed(x_adv, x, threat, rng=noise())
    assert bool(threat.contains(noisy, x).all())
    assert float((noisy != x).any(1).float().mean()) > 0.9


def test_noise_of_counts_is_of_counts(images, image_threat):
    threat = image_threat("linf", 8.0)
    threat = replace(threat, domain=(*threat.domain, whole_numbers()))
    x, x_adv = (rows.round() for rows in changed(images))
    noisy = unaimed(x_adv, x, threat, rng=noise())
    assert torch.equal(noisy, noisy.round())
    assert bool(threat.contains(noisy, x).all())


@pytest.mark.parametrize(
    ("output", "before", "after", "goal", "expected"),
    [
        ("classes", [0, 2], [1, 0], AnyError(), ([0, 2], [1, 0])),
        ("value", [1.5, 2.0], [9.0, 0.0], AnyError(), ([0, 0], [0, 0])),
        ("labels", [[1, 0, 1], [0, 0, 0]], [[1, 1, 0], [0, 0, 1]], AnyError(), ([1, 2], [1, 2])),
        ("labels", [[1, 0, 1]], [[1, 1, 0]], OneFinding(2, True, "hide:mass"), ([2], [2])),
        ("mask", [[[1, 2], [2, 0]]], [[[0, 0], [0, 0]]], AnyError(), ([2], [1])),
    ],
)
def test_the_class_that_is_asked_about(output, before, after, goal, expected):
    first, new = _asked(output, torch.tensor(before), torch.tensor(after), 3, goal)
    assert (first.tolist(), new.tolist()) == expected


def test_measures_of_known_attributions():
    clean = torch.zeros(2, 1, 10, 10)
    clean[:, 0, 0] = 1.0
    moved = torch.zeros(2, 1, 10, 10)
    moved[:, 0, 9] = 1.0
    lesions = torch.zeros(2, 10, 10, dtype=torch.bool)
    lesions[0, 0, :5] = True
    found = measures(Explanations(clean=clean, new=moved, other=moved, first=clean, noise=-clean), lesions)
    assert found["cosine_new"] == pytest.approx([0, 0], abs=1e-6)
    assert found["cosine_first"] == pytest.approx([1, 1])
    assert found["cosine_noise"] == pytest.approx([-1, -1])
    assert found["cosine_other"] == pytest.approx([0, 0], abs=1e-6)
    assert found["overlap_new"] == pytest.approx([0, 0])
    assert found["overlap_noise"] == pytest.approx([1, 1])
    assert found["inside_clean"][0] == pytest.approx(0.5)
    assert found["inside_new"][0] == pytest.approx(0)
    assert found["inside_clean"][1] != found["inside_clean"][1]  # no lesion, no share
