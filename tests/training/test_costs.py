"""What a defended model cost: from the first weights on that are in it, and no other."""

import json
from dataclasses import replace

import pytest
import torch

from titer.core.plugins import make_defense

BUDGET = {"eps": 0.1, "unit": "grey level"}
TRAINED = {
    "adversarial-training": BUDGET,
    "trades": BUDGET,
    "fast-adversarial-training": BUDGET,
    "adaptive-margin": BUDGET,
    "interval-training": BUDGET,
    "randomized-smoothing": {"sigma": 0.1, "unit": "grey level"},
}


def _costs(spec, toy):
    paid = {"epochs": 99, "cpu_seconds": 1.0, "wall_seconds": 1.0}
    model = replace(toy.model, provenance=dict(toy.model.provenance) | {"costs": json.dumps([paid])})
    defended = make_defense(spec)(model, toy.data, rng=torch.Generator().manual_seed(0))
    return json.loads(defended.provenance["costs"])


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("warm", [True, False])
def test_the_base_counts_exactly_where_its_weights_are_the_start(name, warm, conv_images):
    costs = _costs({"name": name, **TRAINED[name], "epochs": 1, "warm_start": warm}, conv_images)
    assert [one["epochs"] for one in costs] == ([99, 1] if warm else [1])


def test_a_network_of_new_weights_owes_nothing_to_the_base(conv_images):
    spec = {"name": "lipschitz", "constant": 10, "unit": "grey level", "epochs": 1}
    assert [one["epochs"] for one in _costs(spec, conv_images)] == [1]
    taught = _costs("distillation", conv_images)
    assert len(taught) == 2
    assert all(one["epochs"] != 99 for one in taught)
