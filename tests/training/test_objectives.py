"""What is minimised for findings, values and masks: known values, weights, and that it is learned, attacked or not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model
from titer.core.outputs import errors, predicted, wrong
from titer.core.plugins import make_attack, make_defense
from titer.core.protocols import TrainingData
from titer.core.record import Recipe, Samples
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.naming import any_error
from titer.threats.rules import Box
from titer.training.loop import CrossEntropy, fit
from titer.training.objectives import Penalty, penalty, row_loss, standard

SIDE = 6
EPS = {"labels": 0.6, "value": 0.3, "mask": 0.9}
TOLERANCE = 12.0


def _rows(output, count, seed):
    """Images with one strong mark for each thing to be told, and many weak ones that only a fragile model needs."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn((count, 1, SIDE, SIDE), generator=rng)
    if output == "mask":
        y = torch.zeros((count, SIDE, SIDE), dtype=torch.int64)
        for row, place in enumerate(torch.randint(0, 3, (count, 2), generator=rng).tolist()):
            y[row, place[0] : place[0] + 3, place[1] : place[1] + 3] = 1
        x = 0.4 * x + 2.0 * y.unsqueeze(1)
    else:
        told = 2 * torch.rand((count, 2), generator=rng) - 1
        told = told.sign() if output == "labels" else told[:, :1].expand(-1, 2)
        for half, part in enumerate((slice(0, 3), slice(3, 6))):
            x[:, 0, part] = 0.3 * x[:, 0, part] + 0.25 * told[:, half].view(-1, 1, 1)
            x[:, 0, part, 0] += 2.0 * told[:, half].view(-1, 1) + 0.5 * torch.randn((count, 1), generator=rng)
        y = (told > 0).long() if output == "labels" else 100 + 40 * told[:, 0]
    ids = tuple(f"{seed}-{i}" for i in range(count))
    return Samples(x=x, y=y, ids=ids, patients=ids)


def _data(output, **recipe):
    settings = {"epochs": 15, "batch_size": 32, "learning_rate": 1e-2, **recipe}
    return TrainingData(
        train=_rows(output, 300, 1),
        validation=_rows(output, 80, 2),
        classes=1 if output == "value" else 2,
        domain=(Box(low=-50.0, high=50.0),),
        units={"unit": torch.tensor(1.0)},
        recipe=Recipe(**settings),
        output=output,
    )


class _Scaled(nn.Module):
    """A network whose output starts near the values' mean and spread."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return 100 + 40 * self.net(x)


def _start(output):
    torch.manual_seed(0)
    if output == "mask":
        net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
    else:
        last = nn.Linear(16, 1 if output == "value" else 2)
        net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 16), nn.ReLU(), last)
        net = _Scaled(net) if output == "value" else net
    return replace(network_model("toy", net, lambda x: x, {}), output=output)


@pytest.fixture(scope="module", params=["labels", "value", "mask"])
def trained(request):
    data, start = _data(request.param), _start(request.param)
    return fit(start, start.net, data, standard(data), seed=0), data, _rows(request.param, 100, 3)


def _error(model, x, y):
    return float(errors(model.output, predicted(model.output, model.logits(x)), y).mean())


def test_standard_training_learns_and_keeps_the_kind_of_output(trained):
    model, data, test = trained
    assert model.output == data.output
    untrained = _error(_start(data.output), test.x, test.y)
    assert _error(model, test.x, test.y) < 0.25 * untrained
    missed = wrong(model.output, predicted(model.output, model.logits(test.x)), test.y, tolerance=TOLERANCE)
    assert float(missed.float().mean()) < 0.2


def _robust(model, test, eps):
    threat = Threat(
        family="linf", budget=ball("linf", eps, torch.tensor(1.0), "unit"), domain=(Box(low=-50.0, high=50.0),),
        goal=any_error(model.output, TOLERANCE),
    )  # fmt: skip
    x_adv = make_attack("pgd")(model, test.x, test.y, threat, rng=torch.Generator().manual_seed(0))
    return float((~threat.goal.won(model.logits(x_adv), test.y)).float().mean()), _error(model, x_adv, test.y)


def test_adversarial_training_works_for_every_kind_of_output(trained):
    model, data, test = trained
    eps = EPS[data.output]
    spec = {"name": "adversarial-training", "eps": eps, "unit": "unit", "epochs": 12, "learning_rate": 0.01}
    hardened = make_defense(spec)(model, data, rng=torch.Generator().manual_seed(0))
    (before, error_before), (after, error_after) = (_robust(one, test, eps) for one in (model, hardened))
    assert hardened.output == data.output
    assert after > before + 0.1
    assert error_after < error_before


def test_distillation_softens_findings_and_masks_and_refuses_a_value(trained):
    model, data, test = trained
    distil = make_defense({"name": "distillation", "temperature": 5.0})
    rng = torch.Generator().manual_seed(0)
    if data.output == "value":
        with pytest.raises(Incompatible, match="a model that measures a value gives none"):
            distil(model, data, rng=rng)
        return
    student = distil(model, data, rng=rng)
    assert student.output == data.output
    assert _error(student, test.x, test.y) < 0.5 * _error(_start(data.output), test.x, test.y)
    assert float(student.logits(test.x).abs().mean()) > 2 * float(model.logits(test.x).abs().mean())


def test_penalties_have_their_known_values():
    logits, y = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    expected = functional.binary_cross_entropy_with_logits(logits, y.float())
    torch.testing.assert_close(Penalty(output="labels")(logits, y), expected)
    value = Penalty(output="value", spread=10.0)(torch.tensor([[12.0], [40.0]]), torch.tensor([10.0, 10.0]))
    assert float(value) == pytest.approx((0.5 * 0.2**2 + (3.0 - 0.5)) / 2)
    mask = torch.zeros((1, 4, 4), dtype=torch.int64)
    mask[0, :2] = 1
    sure = 50.0 * functional.one_hot(mask, 2).movedim(-1, 1).float()
    assert float(Penalty(output="mask")(sure, mask)) == pytest.approx(0.0, abs=1e-4)
    empty = 50.0 * functional.one_hot(torch.zeros_like(mask), 2).movedim(-1, 1).float()
    assert float(Penalty(output="mask")(empty, mask)) == pytest.approx(25.0 + 1 - 1 / 9, abs=1e-3)


def test_rows_losses_are_those_of_the_batch():
    for output in ("labels", "mask"):
        part, model = _rows(output, 5, 7), _start(output)
        logits = model.logits(part.x)
        each = row_loss(output, logits, part.y)
        assert each.shape == (5,)
        whole = (
            functional.cross_entropy(logits, part.y)
            if output == "mask"
            else functional.binary_cross_entropy_with_logits(logits, part.y.float())
        )
        torch.testing.assert_close(each.mean(), whole)
    assert row_loss("value", torch.tensor([[3.0]]), torch.tensor([5.0])).tolist() == [2.0]


def test_balanced_findings_weigh_the_rare_ones_by_their_odds():
    data = _data("labels", class_weights="balanced")
    y = torch.zeros((300, 2), dtype=torch.int64)
    y[:30, 0], y[:150, 1] = 1, 1
    weights = penalty(replace(data, train=replace(data.train, y=y))).weights
    assert weights.tolist() == pytest.approx([270 / 30, 1.0])
    assert penalty(_data("labels")).weights is None


def test_the_spread_of_a_value_is_that_of_the_training_part():
    data = _data("value")
    assert penalty(data).spread == pytest.approx(float(data.train.y.std()), rel=1e-4)


def test_classes_are_trained_as_they_always_were(images):
    assert standard(images.data) == CrossEntropy()
    assert standard(images.data, temperature=3.0).key == CrossEntropy(temperature=3.0).key


def test_a_model_in_training_is_told_its_output():
    assert Model(name="m", logits=lambda x: x, output="mask").limited("decision").output == "mask"
