"""Foolbox's side."""

from __future__ import annotations

import foolbox
from foolbox import attacks as fb
from torch import Tensor

from attack_bench.bout import Bout


def _run(bout: Bout, attack: object, **settings: object) -> Tensor:
    assert callable(attack)
    bounded = foolbox.PyTorchModel(bout.net, bounds=(0, 1), device="cpu")
    raw, clipped, _ = attack(bounded, bout.x, bout.y, epsilons=bout.eps, **settings)
    found: Tensor = raw if bout.eps is None else clipped
    return found


def _pgd(bout: Bout) -> Tensor:
    return _run(bout, fb.LinfPGD(steps=40, rel_stepsize=0.1, random_start=True))


def _carlini_wagner(bout: Bout) -> Tensor:
    attack = fb.L2CarliniWagnerAttack(binary_search_steps=5, steps=100, stepsize=0.01, initial_const=1.0)
    return _run(bout, attack)


def _ddn(bout: Bout) -> Tensor:
    return _run(bout, fb.DDNAttack(steps=100))


def _fmn(bout: Bout) -> Tensor:
    return _run(bout, fb.L2FMNAttack(steps=100))


def _deepfool(bout: Bout) -> Tensor:
    return _run(bout, fb.L2DeepFoolAttack(steps=50, overshoot=0.02))


def _hopskipjump(bout: Bout) -> Tensor:
    attack = fb.HopSkipJumpAttack(steps=10, initial_gradient_eval_steps=100)
    return _run(bout, attack)


def _boundary(bout: Bout) -> Tensor:
    return _run(bout, fb.BoundaryAttack(steps=1800))


ATTACKS = {
    "pgd": _pgd,
    "carlini-wagner": _carlini_wagner,
    "least-norm ddn": _ddn,
    "least-norm fmn": _fmn,
    "deepfool": _deepfool,
    "hopskipjump": _hopskipjump,
    "boundary": _boundary,
}
