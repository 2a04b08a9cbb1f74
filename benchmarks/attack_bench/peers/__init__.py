"""One file a peer: `ATTACKS` maps a job, or `job variant`, to a function from a bout to inputs in [0, 1]."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

from torch import Tensor

from attack_bench.bout import Bout

PACKAGES = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
    "adv-lib": "adv-lib",
    "secml-torch": "secml-torch",
    "cleverhans": "cleverhans",
}
"""What each peer is called on the package index."""

_UNUSED = ("torchvision", "torchvision.models", "visdom")


def attack_of(job: str, contestant: str) -> Callable[[Bout], Tensor]:
    """Return a peer's attack; `contestant` is a key of PACKAGES, alone or with a variant: `adv-lib ddn`."""
    _stand_in_for_unused()
    library, _, variant = contestant.partition(" ")
    attacks = importlib.import_module(f"attack_bench.peers.{library.replace('-', '_')}_side").ATTACKS
    found: Callable[[Bout], Tensor] = attacks[f"{job} {variant}".strip()]
    return found


def _stand_in_for_unused() -> None:
    """Put empty modules where peers import what the attacks never use and this torch has no build of."""
    for name in _UNUSED:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, loader=None)
        module.__path__ = []
        sys.modules.setdefault(name, module)
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]  # type: ignore[attr-defined]
