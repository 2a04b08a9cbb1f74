"""The training loop: it learns, repeats, stops, keeps what it trained, and leaves its arguments alone."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model, network_model
from titer.training.loop import CrossEntropy, class_weights, fit, fresh
from titer.training.weights import digest


def _net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))


def _start(net=None):
    return network_model("toy", net or _net(), lambda x: (x - 128) / 30, {"costs": "[]", "data": "d"})


def _short(data, **recipe):
    return replace(data, recipe=replace(data.recipe, **({"epochs": 4} | recipe)))


def _fit(data, net=None, seed=0, objective=None):
    start = _start(net)
    return fit(start, start.net, data, objective or CrossEntropy(), seed=seed)


def _accuracy(model, part):
    return float((model.logits(part.x).argmax(1) == part.y).float().mean())


def test_it_learns_and_leaves_its_arguments_alone(images):
    net = _net()
    before = digest(net.state_dict())
    trained = _fit(_short(images.data, epochs=10), net)
    assert digest(net.state_dict()) == before
    assert _accuracy(_start(_net()), images.test) < 0.8
    assert _accuracy(trained, images.test) > 0.95
    assert trained.provenance["weights"] == digest(trained.net.state_dict())
    assert trained.provenance["data"] == "d"
    assert not trained.net.training
    assert not any(p.requires_grad for p in trained.net.parameters())


def test_the_same_seed_repeats_and_another_does_not(images):
    data = _short(images.data)
    first, again, other = (_fit(data, seed=seed).provenance["weights"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("layer", [nn.Identity, nn.Dropout])
def test_the_global_seed_does_not_matter_and_stays(images, layer):
    net = nn.Sequential(_net(), layer())
    torch.manual_seed(0)
    first = _fit(_short(images.data), net).provenance["weights"]
    torch.manual_seed(999)
    before = torch.random.get_rng_state()
    assert _fit(_short(images.data), net).provenance["weights"] == first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_stops_early_and_keeps_the_best(images):
    class Falling:
        """Scores that get worse from the second epoch on."""

        key = "falling"
        scores = iter([0.5, 0.9, 0.4, 0.3, 0.2, 0.1])

        def loss(self, net, logits, x, y, rng):
            return CrossEntropy().loss(net, logits, x, y, rng)

        def score(self, net, _logits, _part, _rng):
            seen.append(digest(net.state_dict()))
            return next(self.scores)

    seen = []
    trained = _fit(_short(images.data, epochs=50, patience=2), objective=Falling())
    assert len(seen) == 4
    assert trained.provenance["weights"] == seen[1]
    assert json.loads(trained.provenance["costs"])[0]["epochs"] == 4


def test_what_was_trained_is_not_trained_again(images, tmp_path):
    data = replace(_short(images.data), cache=tmp_path)
    first, again = _fit(data), _fit(data)
    assert again.provenance["weights"] == first.provenance["weights"]
    assert torch.equal(again.logits(images.test.x), first.logits(images.test.x))
    (cost,), (kept,) = (json.loads(one.provenance["costs"]) for one in (first, again))
    assert kept == cost | {"cached": True}
    assert not cost["cached"]
    assert cost["wall_seconds"] > 0


def test_a_cached_convolution_answers_to_the_last_bit(images, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.Flatten(), nn.Linear(288, 2)
    )
    data = replace(_short(images.data, epochs=1), cache=tmp_path)
    first, again = _fit(data, net), _fit(data, net)
    assert torch.equal(again.logits(images.test.x), first.logits(images.test.x))


@pytest.mark.parametrize(
    "change",
    [{"epochs": 3}, {"learning_rate": 0.02}, {"weight_decay": 0.0}, {"batch_size": 32}, {"precision": "bf16-mixed"}],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_is_another_training(images, tmp_path, change):
    keys = {_fit(replace(_short(images.data, **own), cache=tmp_path)).provenance["training"] for own in ({}, change)}
    assert len(keys) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_other_data_start_or_objective_is_another_training(images, tmp_path):
    data = replace(_short(images.data, epochs=1), cache=tmp_path)
    fewer = replace(data, train=data.train.take(range(100)))
    other = replace(data, validation=data.validation.take(range(50)))
    models = [
        _fit(data),
        _fit(fewer),
        _fit(other),
        _fit(data, _net(1)),
        _fit(data, objective=CrossEntropy(temperature=2.0)),
        _fit(data, objective=CrossEntropy(weights=torch.tensor([0.5, 1.5]))),
    ]
    assert len({one.provenance["training"] for one in models}) == len(models)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x40
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_trained_again(images, tmp_path, damage):
    data = replace(_short(images.data, epochs=2), cache=tmp_path)
    first = _fit(data)
    (path,) = tmp_path.iterdir()
    damage(path)
    again = _fit(data)
    assert again.provenance["weights"] == first.provenance["weights"]
    assert not json.loads(again.provenance["costs"])[0]["cached"]
    assert json.loads(_fit(data).provenance["costs"])[0]["cached"]


def test_costs_add_up(images):
    first = _fit(_short(images.data, epochs=2))
    second = fit(first, first.net, _short(images.data, epochs=1), CrossEntropy(), seed=1)
    assert [cost["epochs"] for cost in json.loads(second.provenance["costs"])] == [2, 1]


def test_bf16_learns_and_answers_in_float32(images):
    trained = _fit(_short(images.data, epochs=8, precision="bf16-mixed"))
    assert trained.logits(images.test.x).dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in trained.net.parameters())
    assert _accuracy(trained, images.test) > 0.9


def test_a_lone_last_row_does_not_stop_batch_norm(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    data = replace(_short(images.data, batch_size=100), train=images.data.train.take(range(301)))
    assert _accuracy(_fit(data, net), images.test) > 0.7


def test_progress_is_told(images):
    told = []
    _fit(replace(_short(images.data, epochs=3), progress=lambda text, done: told.append((text, done))))
    assert [round(done, 2) for _, done in told] == [0.33, 0.67, 1.0]
    assert told[0][0] == "epoch 1 of 3"


def test_class_weights_are_inverse_frequencies_with_mean_one():
    y = torch.tensor([0] * 6 + [1] * 2)
    weights = class_weights(y, 2, "balanced")
    assert weights.tolist() == pytest.approx([8 / (2 * 6), 8 / (2 * 2)])
    assert float(weights[y].mean()) == pytest.approx(1.0)
    assert class_weights(y, 2, "none") is None
    assert bool(class_weights(y, 3, "balanced").isfinite().all())


def test_weighted_training_finds_the_rare_class(images):
    y = images.data.train.y
    rows = torch.cat([(y == 0).nonzero().flatten(), (y == 1).nonzero().flatten()[:8]])
    data = replace(_short(images.data, epochs=2, learning_rate=1e-3), train=images.data.train.take(rows))
    weights = class_weights(data.train.y, 2, "balanced")
    plain, weighted = _fit(data), _fit(data, objective=CrossEntropy(weights=weights))
    rare = images.test.take((images.test.y == 1).nonzero().flatten())
    assert _accuracy(weighted, rare) > _accuracy(plain, rare)


def test_fresh_draws_new_weights_and_leaves_the_original():
    net = _net()
    before = digest(net.state_dict())
    state = torch.random.get_rng_state()
    first, again, other = fresh(net, 1), fresh(net, 1), fresh(net, 2)
    assert digest(net.state_dict()) == before
    assert digest(first.state_dict()) == digest(again.state_dict())
    assert len({before, digest(first.state_dict()), digest(other.state_dict())}) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_that_cannot_be_rebuilt_cannot_be_trained(images):
    with pytest.raises(Incompatible, match="remote has no network whose weights could be trained"):
        fit(Model(name="remote", logits=lambda x: x), _net(), images.data, CrossEntropy(), seed=0)


def test_a_loss_that_is_no_number_is_told_and_keeps_nothing(images, tmp_path):
    data = replace(_short(images.data, learning_rate=1e30), cache=tmp_path)
    with pytest.raises(SpecError, match="learning_rate = 1e\\+30"):
        _fit(data)
    assert not list(tmp_path.iterdir())
