"""The side of torchattacks, which also packages auto-attack."""

from __future__ import annotations

import torchattacks as ta
from torch import Tensor
from torchattacks.wrappers.multiattack import MultiAttack

from attack_bench.bout import Bout


def _run(bout: Bout, attack: object) -> Tensor:
    assert callable(attack)
    found: Tensor = attack(bout.x, bout.y)
    return found


def _pgd(bout: Bout) -> Tensor:
    eps = bout.budget
    return _run(bout, ta.PGD(bout.net, eps=eps, alpha=0.1 * eps, steps=40, random_start=True))


def _apgd(bout: Bout) -> Tensor:
    return _run(bout, ta.APGD(bout.net, eps=bout.budget, steps=100, n_restarts=1, loss="ce"))


def _carlini_wagner(bout: Bout) -> Tensor:
    return _run(bout, ta.CW(bout.net, c=1, steps=500, lr=0.01))


def _deepfool(bout: Bout) -> Tensor:
    return _run(bout, ta.DeepFool(bout.net, steps=50, overshoot=0.02))


def _jsma(bout: Bout) -> Tensor:
    attack = ta.JSMA(bout.net, theta=1.0, gamma=0.1)
    attack.set_mode_targeted_by_function(lambda _images, labels: (labels + 1) % bout.classes)
    return _run(bout, attack)


def _square(bout: Bout) -> Tensor:
    return _run(bout, ta.Square(bout.net, eps=bout.budget, n_queries=500, n_restarts=1))


def _standard(bout: Bout) -> Tensor:
    """AutoAttack's standard ensemble with the reference's 100 steps, in place of this package's default of 10."""
    shared = {"eps": bout.budget, "norm": "Linf", "seed": 0, "n_restarts": 1}
    targeted = {**shared, "steps": 100, "n_classes": bout.classes}
    ensemble = [
        ta.APGD(bout.net, **shared, steps=100, loss="ce"),
        ta.APGDT(bout.net, **targeted),
        ta.FAB(bout.net, **targeted, multi_targeted=True),
        ta.Square(bout.net, **shared, n_queries=5000),
    ]
    return _run(bout, MultiAttack(ensemble))


ATTACKS = {
    "pgd": _pgd,
    "apgd": _apgd,
    "carlini-wagner": _carlini_wagner,
    "deepfool": _deepfool,
    "jsma": _jsma,
    "square": _square,
    "worst-four": _standard,
    "worst-binary": _standard,
}
