"""Reference architectures: any image size and number of channels, one logit a class."""

import pytest
import torch

from titer.core.errors import SpecError
from titer.core.plugins import make


def _parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 64])
def test_small_cnn(channels, size):
    net = make("networks", "small-cnn")((channels, size, size), 5)
    assert net(torch.rand(2, channels, size, size)).shape == (2, 5)


def test_small_cnn_is_as_wide_as_asked():
    narrow, wide = (make("networks", {"name": "small-cnn", "width": w})((1, 28, 28), 2) for w in (4, 8))
    assert [layer.out_channels for layer in narrow if hasattr(layer, "out_channels")] == [4, 8, 16]
    assert _parameters(wide) > 2 * _parameters(narrow)


@pytest.mark.parametrize("shape", [(30,), (1, 8, 8)])
def test_mlp(shape):
    net = make("networks", {"name": "mlp", "hidden": [7, 5, 3]})(shape, 4)
    assert net(torch.rand(2, *shape)).shape == (2, 4)
    assert [layer.out_features for layer in net if hasattr(layer, "out_features")] == [7, 5, 3, 4]


def test_resnet18():
    for channels, size, stem in ((1, 28, 3), (3, 64, 7)):
        net = make("networks", {"name": "resnet18", "width": 4})((channels, size, size), 3).eval()
        assert net(torch.rand(2, channels, size, size)).shape == (2, 3)
        convolutions = [one for one in net.modules() if isinstance(one, torch.nn.Conv2d)]
        assert convolutions[0].kernel_size == (stem, stem)
        # 17 convolutions and the linear layer are the 18; three more are shortcuts.
        assert len([one for one in convolutions if one.kernel_size != (1, 1)]) == 17


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 13, 22), (1, 8, 8)])
def test_unet_gives_masks_of_the_size_of_the_image(shape):
    net = make("networks", {"name": "unet", "width": 2, "depth": 2})(shape, 3).eval()
    assert net(torch.rand(2, *shape)).shape == (2, 3, *shape[1:])


def test_unet_is_as_wide_and_deep_as_asked():
    sizes = [
        _parameters(make("networks", {"name": "unet", **own})((1, 16, 16), 2))
        for own in ({}, {"width": 4}, {"depth": 2})
    ]
    assert sizes[0] > 3 * sizes[1]
    assert sizes[0] > 3 * sizes[2]


@pytest.mark.parametrize("spec", [{"name": "small-cnn", "width": 0}, {"name": "mlp", "hidden": [4, 0]}])
def test_a_width_is_positive(spec):
    with pytest.raises(SpecError, match="is not allowed"):
        make("networks", spec)


def test_late_fusion_is_the_mean_of_its_branches_probabilities():
    net = make("networks", {"name": "late-fusion", "parts": [3, 5]})((8,), 4)
    x = torch.randn(6, 8)
    votes = [branch(part).softmax(1) for branch, part in zip(net.branches, x.split([3, 5], dim=1), strict=True)]
    torch.testing.assert_close(net(x).softmax(1), torch.stack(votes).mean(0))


def test_each_branch_of_late_fusion_sees_its_own_modality_only():
    net = make("networks", {"name": "late-fusion", "parts": [3, 5]})((8,), 2)
    x = torch.randn(1, 8, requires_grad=True)
    slope = torch.autograd.grad(net.branches[0](x.split([3, 5], dim=1)[0]).sum(), x)[0]
    assert slope[:, :3].abs().sum() > 0
    assert slope[:, 3:].abs().sum() == 0


@pytest.mark.parametrize("parts", [[8], [3, 4], [3, 6]])
def test_parts_that_are_not_the_row_are_refused(parts):
    with pytest.raises(SpecError, match="the 8 values of a row"):
        make("networks", {"name": "late-fusion", "parts": parts})((8,), 2)


@pytest.mark.parametrize("reads", [1, 2])
def test_a_network_of_one_modality_is_blind_to_the_other(reads):
    net = make("networks", {"name": "one-modality", "parts": [3, 5], "reads": reads})((8,), 2)
    x = torch.randn(6, 8, requires_grad=True)
    parts = torch.autograd.grad(net(x).sum(), x)[0].split([3, 5], dim=1)
    assert [bool(part.abs().sum() > 0) for part in parts] == [reads == 1, reads == 2]


def test_a_modality_that_is_not_there_cannot_be_read():
    with pytest.raises(SpecError, match=r"reads = 3 is not allowed: 1 to 2"):
        make("networks", {"name": "one-modality", "parts": [3, 5], "reads": 3})


def test_of_two_equal_votes_one_that_is_certain_outvotes_the_other():
    """Whoever owns one of two modalities reaches every answer, however sure the other branch is."""
    net = make("networks", {"name": "late-fusion", "parts": [3, 5]})((8,), 2)
    with torch.no_grad():
        for branch, sure in zip(net.branches, ([50.0, -50.0], [-4.0, 4.0]), strict=True):
            last = branch[-1]
            last.weight.zero_()
            last.bias.copy_(torch.tensor(sure))
    assert net(torch.randn(5, 8)).argmax(1).tolist() == [0] * 5


def test_the_state_of_a_site_is_half_way_at_the_threshold_and_has_a_slope_everywhere():
    net = make("networks", {"name": "methylation-state", "threshold": 0.4, "softness": 0.05})((3,), 2)
    x = torch.tensor([[0.0, 0.4, 1.0]], requires_grad=True)
    states = net[0](x)
    torch.testing.assert_close(states, (2 / (1 + torch.exp(-(x - 0.4) / 0.05)) - 1))
    assert bool((torch.autograd.grad(states.sum(), x)[0] > 0).all())


@pytest.mark.parametrize("ploidy", [1, 2, 4])
def test_whole_dosages_are_one_hot_with_a_slope(ploidy):
    net = make("networks", {"name": "dosage-states", "ploidy": ploidy})((ploidy + 1,), 2)
    x = torch.arange(ploidy + 1.0).unsqueeze(0).requires_grad_()
    states = net[0](x).view(ploidy + 1, ploidy + 1)
    torch.testing.assert_close(states, torch.eye(ploidy + 1))
    assert bool((torch.autograd.grad(states[:, 0].sum(), x)[0] != 0).all())


@pytest.mark.parametrize("name", ["methylation-state", "dosage-states"])
def test_the_network_behind_a_state_is_chosen(name):
    net = make("networks", {"name": name, "branch": {"name": "mlp", "hidden": []}})((6,), 3)
    assert net(torch.rand(2, 6)).shape == (2, 3)
    assert len([one for one in net.modules() if isinstance(one, torch.nn.Linear)]) == 1


@pytest.mark.parametrize("name", ["gene-cnn", "gene-transformer"])
@pytest.mark.parametrize("genes", [5, 200, 5000])
def test_networks_of_genes_take_any_number_of_them(name, genes):
    net = make("networks", name)((genes,), 4).eval()
    x = torch.rand(3, genes)
    out = net(x)
    assert out.shape == (3, 4)
    assert torch.allclose(out[:1], net(x[:1]), atol=1e-5)


def test_the_transformer_sees_every_gene():
    net = make("networks", {"name": "gene-transformer", "patches": 7, "width": 8, "heads": 2})((50,), 3).eval()
    x = torch.rand(1, 50, requires_grad=True)
    slope = torch.autograd.grad(net(x)[0, 0], x)[0]
    assert bool((slope != 0).all())


def test_a_width_is_shared_by_whole_heads():
    with pytest.raises(SpecError, match=r"width = 10 is not allowed: a whole multiple of heads = 4"):
        make("networks", {"name": "gene-transformer", "width": 10})
