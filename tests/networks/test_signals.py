from __future__ import annotations

import pytest
import torch

from titer.core.plugins import make
from titer.engine.bound_graph import graph


@pytest.mark.parametrize("spec", ["ecg-cnn", "gru", {"name": "gru", "cell": "lstm"}])
@pytest.mark.parametrize("shape", [(1, 250), (12, 101), (2, 16)])
def test_signals_of_any_leads_and_length_become_logits(spec: str, shape: tuple[int, int]) -> None:
    net = make("networks", spec)(shape, 3).eval()
    x = torch.randn(4, *shape, requires_grad=True)
    logits = net(x)
    assert logits.shape == (4, 3)
    (grad,) = torch.autograd.grad(logits.sum(), x)
    assert bool((grad != 0).flatten(1).any(1).all())


def test_the_convolutional_network_can_be_bounded() -> None:
    net = make("networks", "ecg-cnn")((1, 250), 2)
    assert graph(net, torch.zeros(1, 1, 250)).steps


def test_the_padding_of_a_recurrent_network_changes_no_whole_steps() -> None:
    torch.manual_seed(0)
    net = make("networks", {"name": "gru", "step": 5})((1, 12), 2).eval()
    x = torch.randn(2, 1, 12)
    same = make("networks", {"name": "gru", "step": 5})((1, 15), 2).eval()
    same.load_state_dict(net.state_dict())
    padded = torch.cat([x, x[..., -1:].expand(-1, -1, 3)], dim=2)
    assert torch.allclose(net(x), same(padded))
