"""Models: what an attacker with less access cannot do, draws, and stand-ins for the backward pass."""

import pytest
import torch
from torch import nn

from titer.core.errors import Incompatible
from titer.core.model import Model, network_model


def _squares(**fields):
    return Model(name="squares", logits=lambda x: torch.cat([x**2, x], 1), **fields)


def _first(logits):
    return logits[:, 0]


def test_one_pass_gives_logits_and_gradient():
    x = torch.tensor([[3.0], [-1.0]])
    logits, grad = _squares().evaluate(_first, x)
    assert logits.tolist() == [[9.0, 3.0], [1.0, -1.0]]
    assert grad.tolist() == [[6.0], [-2.0]]
    assert not logits.requires_grad
    assert not x.requires_grad
    assert torch.equal(_squares().grad(_first, x), grad)


def test_full_access_hides_nothing():
    model = _squares()
    assert model.limited("gradient") is model


@pytest.mark.parametrize("access", ["scores", "decision"])
def test_less_access_gives_no_gradient(access):
    limited = _squares().limited(access)
    x = torch.tensor([[3.0]])
    with pytest.raises(Incompatible, match=f"squares: a gradient was asked for under access = '{access}'"):
        limited.evaluate(_first, x)
    with pytest.raises(Incompatible, match=f"a gradient was asked for under access = '{access}'"):
        limited.logits(x.clone().requires_grad_())
    assert not limited.logits(x).requires_grad


@pytest.mark.parametrize("access", ["scores", "decision"])
def test_less_access_closes_every_way_in(access):
    net = nn.Linear(1, 2)
    model = _squares(
        net=net, rebuild=lambda n: n, surrogate=lambda x: x, draw=lambda _rng: lambda x: torch.cat([x, 2 * x], 1)
    ).limited(access)
    assert (model.net, model.rebuild, model.surrogate) == (None, None, None)
    assert model.draw is not None
    drawn = model.draw(torch.Generator())
    assert drawn(torch.tensor([[3.0]])).tolist() == ([[3.0, 6.0]] if access == "scores" else [[0.0, 1.0]])
    with pytest.raises(Incompatible):
        drawn(torch.ones(1, 1, requires_grad=True))


def test_scores_are_the_logits_and_decisions_one_hot():
    x = torch.tensor([[3.0], [0.5]])
    assert torch.equal(_squares().limited("scores").logits(x), _squares().logits(x))
    assert _squares().limited("decision").logits(x).tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("first", "second"), [("scores", "gradient"), ("decision", "scores"), ("decision", "gradient")]
)
def test_access_never_grows_again(first, second):
    assert _squares().limited(first).limited(second).access == first


def test_the_gradient_is_the_mean_over_draws():
    def draw(rng):
        factor = torch.randint(1, 10, (1,), generator=rng).float()
        return lambda x: torch.cat([factor * x, x], 1)

    model, x = _squares(draw=draw), torch.ones(1, 1)
    rng = torch.Generator().manual_seed(4)
    factors = [float(torch.randint(1, 10, (1,), generator=rng)) for _ in range(5)]
    logits, grad = model.evaluate(_first, x, draws=5, rng=torch.Generator().manual_seed(4))
    assert float(grad) == pytest.approx(sum(factors) / 5)
    assert float(logits[0, 0]) == pytest.approx(sum(factors) / 5)
    with pytest.raises(Incompatible, match="squares is randomised: its gradient needs a source of draws"):
        model.grad(_first, x)


def test_a_model_that_is_not_randomised_is_run_once():
    calls = []

    def logits(x):
        calls.append(len(x))
        return torch.cat([x, x], 1)

    Model(name="counted", logits=logits).grad(_first, torch.ones(2, 1), draws=16)
    assert calls == [2]


def test_the_surrogate_stands_in_for_the_backward_pass():
    def hard(x):
        return torch.cat([x.detach().round(), 0 * x.detach()], 1)

    def soft(x):
        return torch.cat([x + (x.round() - x).detach(), 0 * x], 1)

    logits, grad = Model(name="rounded", logits=hard, surrogate=soft).evaluate(_first, torch.tensor([[1.7]]))
    assert float(logits[0, 0]) == 2.0
    assert float(grad) == 1.0
    with pytest.raises(Incompatible, match=r"rounded is not differentiable and declares no surrogate \(BPDA\)"):
        Model(name="rounded", logits=hard).grad(_first, torch.tensor([[1.7]]))


def test_a_network_is_frozen_and_in_evaluation_mode():
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    model = network_model("net", net, lambda x: 2 * x, {"weights": "w"})
    x = torch.ones(2, 3)
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training
    assert torch.equal(model.logits(x), net(2 * x))
    assert model.rebuild is not None
    assert torch.equal(model.rebuild(net[2])(torch.ones(2, 4)), net[2](2 * torch.ones(2, 4)))
    assert dict(model.provenance) == {"weights": "w"}
