"""Titer measures, builds up and guards the immunity of clinical AI models to adversarial attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "L1",
    "L2",
    "AnyError",
    "Linf",
    "Model",
    "Threat",
    "__version__",
    "attack_rows",
    "load_data",
    "load_plan",
    "make",
    "network_model",
    "run_plan",
]

_HOMES = {
    "AnyError": "titer.threats.goals:AnyError",
    "L1": "titer.threats.balls:L1",
    "L2": "titer.threats.balls:L2",
    "Linf": "titer.threats.balls:Linf",
    "Model": "titer.core.model:Model",
    "Threat": "titer.core.threat:Threat",
    "attack_rows": "titer.assess.judge:attack_rows",
    "load_data": "titer.core.plugins:load_data",
    "load_plan": "titer.assess.plan:load_plan",
    "make": "titer.core.plugins:make",
    "network_model": "titer.core.model:network_model",
    "run_plan": "titer.assess.run:assess",
}

if TYPE_CHECKING:
    from titer.assess.judge import attack_rows
    from titer.assess.plan import load_plan
    from titer.assess.run import assess as run_plan
    from titer.core.model import Model, network_model
    from titer.core.plugins import load_data, make
    from titer.core.threat import Threat
    from titer.threats.balls import L1, L2, Linf
    from titer.threats.goals import AnyError


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch takes seconds, `import titer` must not."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'titer' has no attribute {name!r}")
    module, attribute = _HOMES[name].split(":")
    return getattr(importlib.import_module(module), attribute)
