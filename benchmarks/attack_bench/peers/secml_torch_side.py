"""The side of secml-torch: its own attacks, not those that it takes from foolbox and adv_lib."""

from __future__ import annotations

import torch
from secmlt.adv.backends import Backends
from secmlt.adv.evasion.ddn import DDN
from secmlt.adv.evasion.fmn import FMN
from secmlt.adv.evasion.perturbation_models import LpPerturbationModels
from secmlt.adv.evasion.pgd import PGD
from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from attack_bench.bout import Bout


def _run(bout: Bout, attack: object) -> Tensor:
    assert callable(attack)
    rows = DataLoader(TensorDataset(bout.x, bout.y), batch_size=len(bout.x), shuffle=False)
    found = attack(BasePyTorchClassifier(bout.net), rows)
    return torch.cat([x for x, _ in found])


def _pgd(bout: Bout) -> Tensor:
    eps = bout.budget
    attack = PGD(
        perturbation_model=LpPerturbationModels.LINF,
        epsilon=eps,
        num_steps=40,
        step_size=0.1 * eps,
        random_start=True,
        backend=Backends.NATIVE,
    )
    return _run(bout, attack)


def _ddn(bout: Bout) -> Tensor:
    return _run(bout, DDN(num_steps=100, eps_init=1.0, backend=Backends.NATIVE))


def _fmn(bout: Bout) -> Tensor:
    attack = FMN(perturbation_model=LpPerturbationModels.L2, num_steps=100, step_size=1.0, backend=Backends.NATIVE)
    return _run(bout, attack)


ATTACKS = {"pgd": _pgd, "least-norm ddn": _ddn, "least-norm fmn": _fmn}
