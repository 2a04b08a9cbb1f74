"""Weights that a user gives for a network: loaded where they fit, and told apart where they do not."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from titer.assess.adapters import InUnits
from titer.assess.probe import Probe
from titer.core.errors import SpecError
from titer.training.weights import read


def loaded(net: nn.Module, probe: Probe, path: Path, where: str) -> nn.Module:
    """Return the network with weights from a file; those that `titer harden` kept with a value's unit keep it.

    Raises:
        SpecError: the first keys that are missing, unexpected or of another shape.
    """
    state = read(path, where)
    if probe.output == "value" and InUnits.stored(state):
        net = InUnits(net, torch.zeros(()), torch.ones(())).to(probe.rows.device).eval()
    own = net.state_dict()
    kinds = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ],
    }
    wrong = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    if wrong:
        raise SpecError(f"{where} = {str(path)!r} does not fit the network: {', '.join(wrong)}")
    net.load_state_dict(state)
    return net


def _first(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (" ..." if len(names) > shown else "")
