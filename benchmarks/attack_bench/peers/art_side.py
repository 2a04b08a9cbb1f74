"""The side of the Adversarial Robustness Toolbox."""

from __future__ import annotations

import numpy as np
import torch
from art.attacks import evasion
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from attack_bench.bout import Bout


class _Single(nn.Module):
    """A network that takes doubles as well: with NumPy 2 the decision attacks send them, and a float network fails."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.float())
        return logits


def _classifier(bout: Bout, *, cast: bool = False) -> PyTorchClassifier:
    return PyTorchClassifier(
        model=_Single(bout.net) if cast else bout.net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(bout.x.shape[1:]),
        nb_classes=bout.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _run(bout: Bout, attack: object, *, y: Tensor | None = None) -> Tensor:
    y = (bout.y if y is None else y).numpy()
    return torch.from_numpy(np.asarray(attack.generate(x=bout.x.numpy(), y=y), dtype=np.float32))  # type: ignore[attr-defined]


def _row_by_row(bout: Bout, attack: object) -> Tensor:
    def one(x: Tensor, y: Tensor) -> Tensor:
        found = attack.generate(x=x.numpy(), y=y.numpy())  # type: ignore[attr-defined]
        return torch.from_numpy(np.asarray(found, dtype=np.float32))

    return bout.row_by_row(one)


def _pgd(bout: Bout) -> Tensor:
    eps, batch = bout.budget, len(bout.x)
    attack = evasion.ProjectedGradientDescentPyTorch(
        _classifier(bout),
        eps=eps,
        eps_step=0.1 * eps,
        max_iter=40,
        num_random_init=1,
        batch_size=batch,
        verbose=False,
    )
    return _run(bout, attack)


def _apgd(bout: Bout) -> Tensor:
    eps = bout.budget
    attack = evasion.AutoProjectedGradientDescent(
        _classifier(bout),
        eps=eps,
        eps_step=2 * eps,
        max_iter=100,
        nb_random_init=1,
        batch_size=len(bout.x),
        loss_type="cross_entropy",
        verbose=False,
    )
    return _run(bout, attack)


def _carlini_wagner(bout: Bout) -> Tensor:
    attack = evasion.CarliniL2Method(
        _classifier(bout),
        binary_search_steps=5,
        max_iter=100,
        learning_rate=0.01,
        initial_const=1.0,
        batch_size=len(bout.x),
        verbose=False,
    )
    return _run(bout, attack)


def _deepfool(bout: Bout) -> Tensor:
    attack = evasion.DeepFool(_classifier(bout), max_iter=50, epsilon=0.02, batch_size=len(bout.x), verbose=False)
    return _run(bout, attack)


def _jsma(bout: Bout) -> Tensor:
    attack = evasion.SaliencyMapMethod(_classifier(bout), theta=1.0, gamma=0.1, batch_size=len(bout.x), verbose=False)
    return _run(bout, attack, y=(bout.y + 1) % bout.classes)


def _square(bout: Bout) -> Tensor:
    attack = evasion.SquareAttack(
        _classifier(bout), eps=bout.budget, max_iter=500, nb_restarts=1, batch_size=len(bout.x), verbose=False
    )
    return _run(bout, attack)


def _hopskipjump(bout: Bout) -> Tensor:
    attack = evasion.HopSkipJump(
        _classifier(bout, cast=True), max_iter=10, max_eval=10000, init_eval=100, batch_size=128, verbose=False
    )
    return _row_by_row(bout, attack)


def _boundary(bout: Bout) -> Tensor:
    attack = evasion.BoundaryAttack(
        _classifier(bout, cast=True), targeted=False, max_iter=70, batch_size=128, verbose=False
    )
    return _row_by_row(bout, attack)


ATTACKS = {
    "pgd": _pgd,
    "apgd": _apgd,
    "carlini-wagner": _carlini_wagner,
    "deepfool": _deepfool,
    "jsma": _jsma,
    "square": _square,
    "hopskipjump": _hopskipjump,
    "boundary": _boundary,
}
