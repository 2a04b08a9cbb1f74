"""Detectors against what is known of them: Mahalanobis on Gaussians, drift of a stream, neighbours, squeezing."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import make_detector, make_stream_detector
from titer.detectors.nearest_neighbour import nearest_neighbour
from titer.detectors.shift import distance, whitening
from titer.engine.squeezing import fewer_levels, median
from titer.stats.alarms import auroc


def test_mahalanobis_is_the_distance_of_the_gaussians_it_was_fitted_on():
    rng = torch.Generator().manual_seed(0)
    shape = torch.tensor([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.3, 0.2]])
    means = torch.tensor([[0.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    y = torch.arange(20000) % 2
    x = torch.randn((20000, 3), generator=rng) @ shape.T + means[y]
    far = distance(*whitening(x, y))
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.1], [41.0, -1.0, 0.3]])
    precision = torch.linalg.inv(shape @ shape.T)
    centred = points - means[[0, 0, 1]]
    exact = (centred @ precision * centred).sum(1)
    assert torch.allclose(far(points), exact, rtol=0.05, atol=0.02)
    share = (far(x) > float(chi2.ppf(0.95, 3))).float().mean()
    assert float(share) == pytest.approx(0.05, abs=0.006)


def test_a_matrix_of_several_blocks_gives_the_same_distance():
    rng = torch.Generator().manual_seed(0)
    whiten = torch.randn((600, 600), generator=rng, dtype=torch.float64).triu()
    features = torch.randn((5, 600), generator=rng, dtype=torch.float64)
    centres = torch.randn((3, 600), generator=rng, dtype=torch.float64)
    exact = torch.cdist(features @ whiten, centres).square().amin(1)
    assert torch.allclose(distance(whiten, centres)(features), exact)


def test_features_that_never_vary_do_not_break_it():
    far = distance(*whitening(torch.ones(10, 4), torch.arange(10) % 2))
    assert float(far(torch.ones(1, 4))) == pytest.approx(0.0, abs=1e-6)
    assert bool(far(torch.zeros(1, 4)).isfinite())


def test_neighbours_of_another_class_are_counted(linear_model):
    """Of two clusters on a line, a row called by the other's name has only neighbours of another class."""
    from titer.core.protocols import TrainingData
    from titer.core.record import Recipe, Samples

    x = torch.cat([torch.tensor([[1.0, 0.1]]).repeat(20, 1), torch.tensor([[0.1, 1.0]]).repeat(20, 1)])
    x = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    y, ids = torch.arange(40) // 20, tuple(map(str, range(40)))
    part = Samples(x=x, y=y, ids=ids, patients=ids)
    data = TrainingData(train=part, validation=part, classes=2, domain=(), units={}, recipe=Recipe())
    turned = linear_model(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    honest = linear_model(torch.eye(2))
    detect = nearest_neighbour(neighbours=5, measure="labels")
    assert detect(honest, data, rng=torch.Generator()).score(x).tolist() == [0.0] * 40
    assert detect(turned, data, rng=torch.Generator()).score(x).tolist() == [1.0] * 40
    with pytest.raises(Incompatible, match="41 training rows"):
        nearest_neighbour(neighbours=40)(honest, data, rng=torch.Generator())


def test_squeezers_do_what_they_say():
    low, high = torch.tensor(0.0), torch.tensor(255.0)
    x = torch.tensor([[0.0, 100.0, 200.0, 255.0, 300.0]], requires_grad=True)
    out = fewer_levels(x, 1, low, high)
    assert out.tolist() == [[0.0, 0.0, 255.0, 255.0, 300.0]]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [[1.0] * 5]
    speck = torch.zeros(1, 1, 5, 5)
    speck[..., 2, 2] = 9.0
    assert float(median(speck, 3).abs().max()) == 0.0
    assert median(torch.rand(2, 3, 7), 3).shape == (2, 3, 7)


def test_far_inputs_are_told_from_clean_ones(conv_images):
    """Noise of three standard deviations of the data is another distribution."""
    noise = torch.randn(conv_images.test.x.shape, generator=torch.Generator().manual_seed(0))
    far = (conv_images.test.x + 70 * noise).clamp(0, 255)
    for spec in ("shift", {"name": "reconstruction", "measure": "error", "epochs": 10, "width": 8}):
        alarm = make_detector(spec)(conv_images.model, conv_images.data, rng=torch.Generator().manual_seed(0))
        assert auroc(alarm.score(conv_images.test.x).tolist(), alarm.score(far).tolist()) > 0.9, alarm.name


def test_features_of_a_guarded_network_are_those_behind_its_sanitization(conv_images):
    from titer.engine.features import penultimate

    model = replace(conv_images.model, logits=lambda x: conv_images.model.logits(0 * x))
    read = penultimate(model, conv_images.test.x)
    assert torch.equal(read(conv_images.test.x[:1]), read(conv_images.test.x[1:2]))
    assert read(conv_images.test.x).shape == (100, 128)


def _stream(toy, **settings):
    return make_stream_detector({"name": "population-drift", **settings})(
        toy.model, toy.data, rng=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("settings", [{"test": "ks"}, {"test": "mmd", "horizon": 20}, {"view": "features"}])
def test_a_stream_of_another_population_is_found_and_its_own_is_not(conv_images, settings):
    watch, x = _stream(conv_images, **settings), conv_images.test.x
    quiet = [watch.look(part, at) for at, part in enumerate(x.split(25))]
    assert not any(one.drifted for one in quiet)
    assert watch.look(255 - x[:50], 4).drifted or watch.look(x[conv_images.test.y == 1][:40] * 0.5, 5).drifted
    assert watch.look(x[:25], 0) == watch.look(x[:25], 0)


def test_repeated_looks_share_the_chance_of_a_false_alarm(conv_images):
    look = _stream(conv_images, false_alarms=0.1, horizon=50).look(conv_images.test.x[:25], 0)
    assert look.level == pytest.approx(0.1 / 50)


def test_batches_that_do_not_fit_are_refused(conv_images):
    watch = _stream(conv_images)
    with pytest.raises(Incompatible, match="batches of 5 rows or more of shape"):
        watch.look(conv_images.test.x[:3], 0)
    with pytest.raises(Incompatible, match="of shape"):
        watch.look(conv_images.test.x[..., :-1], 0)


def test_streams_and_single_inputs_are_not_mixed_up():
    with pytest.raises(SpecError, match="watches streams"):
        make_detector("population-drift")
    with pytest.raises(SpecError, match="scores single inputs"):
        make_stream_detector("shift")


def test_settings_that_cannot_work_say_so(conv_images):
    rng = torch.Generator()
    with pytest.raises(Incompatible, match="no squeezer left"):
        make_detector({"name": "feature-squeezing", "bits": 0, "window": 0})(
            conv_images.model, conv_images.data, rng=rng
        )
    with pytest.raises(Incompatible, match="two explainers or more"):
        make_detector({"name": "explainer-disagreement", "explainers": ["gradcam"]})(
            conv_images.model, conv_images.data, rng=rng
        )
