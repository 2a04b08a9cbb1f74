"""The side of cleverhans."""

from __future__ import annotations

import numpy as np
from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2
from cleverhans.torch.attacks.hop_skip_jump_attack import hop_skip_jump_attack
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from torch import Tensor

from attack_bench.bout import Bout


def _pgd(bout: Bout) -> Tensor:
    eps = bout.budget
    found: Tensor = projected_gradient_descent(
        bout.net, bout.x, eps, 0.1 * eps, 40, np.inf, clip_min=0.0, clip_max=1.0, y=bout.y, rand_init=True
    )
    return found.detach()


def _carlini_wagner(bout: Bout) -> Tensor:
    found: Tensor = carlini_wagner_l2(
        bout.net,
        bout.x,
        bout.classes,
        y=bout.y,
        lr=0.01,
        initial_const=1.0,
        binary_search_steps=5,
        max_iterations=100,
    )
    return found.detach()


def _hopskipjump(bout: Bout) -> Tensor:
    def one(x: Tensor, _y: Tensor) -> Tensor:
        found: Tensor = hop_skip_jump_attack(bout.net, x, 2, num_iterations=10, initial_num_evals=100, verbose=False)
        return found.detach()

    return bout.row_by_row(one)


ATTACKS = {"pgd": _pgd, "carlini-wagner": _carlini_wagner, "hopskipjump": _hopskipjump}
