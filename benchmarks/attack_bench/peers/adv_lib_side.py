"""The side of adv_lib."""

from __future__ import annotations

from adv_lib import attacks as al
from adv_lib.attacks.auto_pgd import apgd
from adv_lib.attacks.deepfool import df
from adv_lib.attacks.superdeepfool import sdf
from torch import Tensor

from attack_bench.bout import Bout


def _pgd(bout: Bout) -> Tensor:
    found: Tensor = al.pgd_linf(bout.net, bout.x, bout.y, bout.budget, steps=40, relative_step_size=0.1)
    return found


def _apgd(bout: Bout) -> Tensor:
    found: Tensor = apgd(
        bout.net, bout.x, bout.y, bout.budget, norm=float("inf"), n_iter=100, n_restarts=1, loss_function="ce"
    )
    return found


def _carlini_wagner(bout: Bout) -> Tensor:
    found: Tensor = al.carlini_wagner_l2(
        bout.net, bout.x, bout.y, learning_rate=0.01, initial_const=1.0, binary_search_steps=5, max_iterations=100
    )
    return found


def _ddn(bout: Bout) -> Tensor:
    # Without levels: rounding to 256 grey levels makes the perturbation longer, and no other library does it.
    found: Tensor = al.ddn(bout.net, bout.x, bout.y, steps=100, levels=None)
    return found


def _fmn(bout: Bout) -> Tensor:
    found: Tensor = al.fmn(bout.net, bout.x, bout.y, norm=2, steps=100)
    return found


def _deepfool(bout: Bout) -> Tensor:
    found: Tensor = df(bout.net, bout.x, bout.y, steps=50, overshoot=0.02, norm=2)
    return found


def _superdeepfool(bout: Bout) -> Tensor:
    found: Tensor = sdf(bout.net, bout.x, bout.y, steps=50, overshoot=0.02)
    return found


ATTACKS = {
    "pgd": _pgd,
    "apgd": _apgd,
    "carlini-wagner": _carlini_wagner,
    "least-norm ddn": _ddn,
    "least-norm fmn": _fmn,
    "deepfool": _deepfool,
    "deepfool superdeepfool": _superdeepfool,
}
