"""The meter counts what was really spent, whoever spent it."""

import torch

from titer.core.model import Model
from titer.engine.metering import Meter


def _model(**fields):
    return Model(name="sum", logits=lambda x: torch.cat([x.sum(1, keepdim=True), -x[:, :1]], 1), **fields)


def test_a_whole_batch_costs_each_row_one_pass():
    meter = Meter(4)
    model = meter.watch(_model())
    model.logits(torch.ones(4, 3))
    assert (meter.forwards.tolist(), meter.backwards.tolist()) == ([1] * 4, [0] * 4)


def test_attended_rows_pay_for_themselves():
    meter = Meter(4)
    model = meter.watch(_model())
    model.attend(torch.tensor([2, 0]))
    model.grad(lambda out: out[:, 0], torch.ones(2, 3))
    assert (meter.forwards.tolist(), meter.backwards.tolist()) == ([1, 0, 1, 0], [1, 0, 1, 0])
    model.attend(torch.tensor([3]))
    model.logits(torch.ones(1, 3))
    assert meter.forwards.tolist() == [1, 0, 1, 1]


def test_a_backward_pass_belongs_to_the_rows_of_its_forward():
    meter = Meter(3)
    model = meter.watch(_model())
    model.attend(torch.tensor([0]))
    x = torch.ones(1, 3, requires_grad=True)
    out = model.logits(x)
    model.attend(torch.tensor([2]))
    out.sum().backward()
    assert meter.backwards.tolist() == [1, 0, 0]


def test_a_part_batch_of_unknown_rows_is_shared_evenly():
    meter = Meter(4)
    model = meter.watch(_model())
    model.grad(lambda out: out[:, 0], torch.ones(2, 3))
    assert (meter.forwards.tolist(), meter.backwards.tolist()) == ([0.5] * 4, [0.5] * 4)


def test_every_backward_pass_counts():
    meter = Meter(2)
    x = torch.ones(2, 3, requires_grad=True)
    out = meter.watch(_model()).logits(x)
    for k in range(2):
        torch.autograd.grad(out[:, k].sum(), x, retain_graph=True)
    assert (meter.forwards.tolist(), meter.backwards.tolist()) == ([1, 1], [2, 2])


def test_surrogate_and_draws_are_counted_and_the_argument_is_not():
    plain = _model(surrogate=lambda x: x, draw=lambda _rng: lambda x: x)
    meter = Meter(2)
    watched = meter.watch(plain)
    assert watched.surrogate is not None
    assert watched.draw is not None
    watched.surrogate(torch.ones(2, 3))
    watched.draw(torch.Generator())(torch.ones(2, 3))
    plain.logits(torch.ones(2, 3))
    assert meter.forwards.tolist() == [2, 2]
    assert plain.meter is None


def test_a_limited_model_is_counted_too():
    meter = Meter(2)
    meter.watch(_model().limited("scores")).logits(torch.ones(2, 3))
    assert (meter.forwards.tolist(), meter.backwards.tolist()) == ([1, 1], [0, 0])
