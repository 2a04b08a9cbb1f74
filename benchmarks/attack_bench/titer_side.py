"""Titer's side: its attack by spec, through the judge, on the same network and rows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from titer.assess.judge import predict, propose, reached
from titer.core.model import Model, network_model
from titer.core.plugins import make_attack, plugin
from titer.core.randomness import generator
from titer.core.registry import SHELVES
from titer.core.threat import Access, Threat
from titer.engine.fast import Precision
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box

BUDGETS = {"linf": ("/255", 1.0), "l2": ("range", 255.0), "l0": ("pixel", 1.0)}
"""Each norm's unit and its raw size."""

FREE = {"l2": 1.0, "l0": 78.0}
"""The threat's eps where a least-perturbation attack ignores it; for JSMA a tenth of the pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fought:
    """What Titer's attack cost and found: inputs in [0, 1], CPU seconds, and passes of each row, float64[N]."""

    x_adv: Tensor
    cpu_seconds: float
    forwards: Tensor
    backwards: Tensor


def precision_of(contestant: str) -> Precision:
    """Return what Titer's attack of this label searches in."""
    return "bfloat16" if contestant.endswith("bf16") else "float32"


def is_there(spec: Mapping[str, Any]) -> bool:
    """Return whether the attack of the spec is registered."""
    return str(spec["name"]) in SHELVES["attacks"].all()


def fight(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    spec: Mapping[str, Any],
    *,
    norm: str,
    eps: float | None,
    access: Access,
    precision: Precision,
) -> Fought:
    """Attack x [N, C, H, W] in [0, 1] within eps (255ths of the range, None for a least-perturbation attack).

    The seconds hold the clean prediction, by which rows that are wrong already are left out, and the check of what the
    attack proposes, as an assessment does both.
    """
    model, raw = raw_model(net), x * 255
    threat = _threat(norm, eps, access)
    attack = make_attack(dict(spec))
    minimal = "minimal" in plugin("attacks", dict(spec)).traits
    began = time.process_time()
    won = reached(threat, predict(model, raw, rng=generator(0)), y)
    found = propose(attack, model, raw, y, threat, won, minimal=minimal, rng=generator(0), precision=precision)
    spent = time.process_time() - began
    return Fought(
        x_adv=(found.x_adv / 255).float(),
        cpu_seconds=spent,
        forwards=found.forwards + 1,
        backwards=found.backwards,
    )


def raw_model(net: nn.Module) -> Model:
    """Return the network as a model of raw grey levels."""
    return network_model("subject", net, lambda x: x / 255, {})


def _threat(norm: str, eps: float | None, access: Access) -> Threat:
    unit, scale = BUDGETS[norm]
    return Threat(
        family=norm,
        budget=ball(norm, FREE[norm] if eps is None else eps, torch.tensor(scale), unit),
        domain=(Box(low=0.0, high=255.0, text="each grey level in [0, 255]"),),
        goal=AnyError(),
        access=access,
    )
