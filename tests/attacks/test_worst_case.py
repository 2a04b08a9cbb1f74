"""The worst case: no weaker than its members, at the cost of survivors only, and not fooled by masked gradients."""

from dataclasses import replace

import pytest
import torch

from titer.assess.judge import attack_rows
from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.engine.ensemble import members, strongest
from titer.engine.metering import Meter


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _robust(spec, model, rows, threat):
    return attack_rows(make_attack(spec), model, rows.x, rows.y, threat).robust_accuracy


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_is_no_weaker_than_any_attack_in_it(norm, images, image_threat):
    threat = image_threat(norm, {"linf": 5.0, "l2": 40.0, "l1": 250.0}[norm])
    rows = images.test.take(range(60))
    worst = _robust({"name": "worst-case", "steps": 40}, images.model, rows, threat)
    for spec in ({"name": "apgd", "steps": 40}, {"name": "pgd", "steps": 40}, "fgsm", "mim"):
        assert worst <= _robust(spec, images.model, rows, threat)
    assert 0.0 < worst < 1.0


def test_in_l0_it_is_no_weaker_than_substitution_or_the_others(images, image_threat):
    threat, rows = image_threat("l0", 4.0), images.test.take(range(40))
    worst = _robust({"name": "worst-case", "steps": 40}, images.model, rows, threat)
    without = _robust({"name": "worst-case", "attacks": ("fmn", "jsma", "sparse-rs")}, images.model, rows, threat)
    assert worst <= _robust({"name": "substitution", "tries": 8, "beam": 2}, images.model, rows, threat)
    assert worst <= without
    assert worst < 1.0


def test_each_attack_gets_the_survivors_only(linear_model, free_threat):
    model = linear_model(torch.tensor([[1.0], [0.0]]))
    x, y = torch.tensor([[0.5], [0.9], [50.0]]), torch.zeros(3, dtype=torch.int64)
    asked = []

    def recording(share):
        def run(_model, x, _y, _threat, *, rng):
            del rng
            asked.append(len(x))
            return x - share

        return run

    names = members(["fgsm", "fgsm", "fgsm"], "attacks")
    ladder = [replace(one, run=recording(share)) for one, share in zip(names, (0.6, 1.0, 1.0), strict=True)]
    meter = Meter(3)
    found = strongest(ladder, meter.watch(model), x, y, free_threat("linf", 1.0), rng=_rng())
    assert asked == [3, 2, 1]
    torch.testing.assert_close(found.flatten(), torch.tensor([-0.1, -0.1, 49.0]))
    assert meter.forwards.tolist() == [1.0, 2.0, 3.0]


def test_members_that_cannot_run_are_left_out_and_nobody_left_is_told(images, image_threat):
    x, y = images.test.x[:4], images.test.y[:4]
    ladder = {"name": "worst-case", "attacks": ("jsma", "fgsm")}
    found = make_attack(ladder)(images.model, x, y, image_threat("linf", 8.0), rng=_rng())
    assert not torch.equal(found, x)
    with pytest.raises(Incompatible, match="no attack of the ensemble can run here: jsma knows no linf"):
        make_attack({"name": "worst-case", "attacks": ("jsma",)})(
            images.model, x, y, image_threat("linf", 8.0), rng=_rng()
        )


def test_a_misspelt_member_is_the_users_mistake():
    with pytest.raises(SpecError, match=r"attacks\.worst-case\.attacks\[1\].*'pdg'.*pgd"):
        make_attack({"name": "worst-case", "attacks": ("fgsm", "pdg")})


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_autoattack_runs_whatever_the_number_of_classes(classes, linear_model, free_threat):
    weights = torch.randn((classes, 6), generator=_rng(1))
    model = linear_model(weights)
    x = torch.randn((20, 6), generator=_rng(2))
    y = model.logits(x).argmax(1)
    spec = {"name": "autoattack", "steps": 20, "queries": 20, "rivals": classes}
    threat = free_threat("linf", 0.3)
    assert attack_rows(make_attack(spec), model, x, y, threat).robust_accuracy < 1.0
    rand = attack_rows(make_attack({**spec, "version": "rand"}), model, x, y, threat)
    assert rand.robust_accuracy < 1.0


def _saturated(model):
    """Logits so large that the cross-entropy's gradient is zero in float32."""
    return replace(model, logits=lambda x: 1e4 * model.logits(x), net=None, rebuild=None)


def _rounded(model, levels=16.0):
    """A step without a derivative and without a surrogate."""

    def logits(x):
        return model.logits((x / levels).round().detach() * levels) + 0 * x.flatten(1).sum(1, keepdim=True)

    return Model(name="rounded", logits=logits)


def _noisy(model, sd=12.0):
    """Noise drawn anew at each look: declared, as a defence must, so that attacks average over it."""

    def draw(rng):
        return lambda x: model.logits(x + sd * torch.randn(x.shape, generator=rng))

    return Model(name="noisy", logits=model.logits, draw=draw)


@pytest.mark.parametrize("hide", [_saturated, _rounded, _noisy])
def test_a_defence_that_only_masks_gradients_is_brought_down(hide, images, image_threat):
    """The union over attacks sees through saturation, steps without derivative and randomness.

    The bar is the undefended model's own robust accuracy, 20 points on top: what rounding and noise honestly take.
    """
    threat, rows = image_threat("linf", 8.0), images.test.take(range(60))
    honest = _robust("worst-case", images.model, rows, threat)
    masked = hide(images.model)
    assert honest < 0.5
    assert _robust({"name": "worst-case", "queries": 600}, masked, rows, threat) <= honest + 0.2
