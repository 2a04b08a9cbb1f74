"""Titer measures, builds up and guards the immunity of clinical AI models to adversarial attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Linf", "L1", "L2", "Model", "Threat", "__version__", "assess", "attack_rows", "load_plan", "make", "network_model"]

_HOMES = {
    "L1": "titer.threats.balls",
    "L2": "titer.threats.balls",
    "Linf": "titer.threats.balls",
    "Model": "titer.core.model",
    "Threat": "titer.core.threat",
    "assess": "titer.assess.run",
    "load_plan": "titer.assess.plan",
    "make": "titer.core.plugins",
    "network_model": "titer.core.model",
}

if TYPE_CHECKING:
    from titer.core.model import Model, network_model
    from titer.core.plugins import make
    from titer.core.threat import Threat
    from titer.threats.balls import L1, L2, Linf


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch takes seconds, `import titer` must not."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'titer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
