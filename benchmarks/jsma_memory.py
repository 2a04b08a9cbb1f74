"""What JSMA needs of memory on images of 224 x 224 x 3: prints the process's peak before and after the attack.

    python benchmarks/jsma_memory.py [--rows 8]

A saliency matrix of pairs of values, as in the paper's algorithm 3, would take 84 GiB a row in float32.
"""

from __future__ import annotations

import argparse
import resource

import torch

from titer.assess.judge import attack_rows
from titer.core.model import network_model
from titer.core.plugins import make, make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.rules import Box

SIDE, CHANNELS, VALUES = 224, 3, 60.0


def main() -> None:
    """Attack random images of an untrained network and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = make("networks", "small-cnn")((CHANNELS, SIDE, SIDE), 2)
    model = network_model("untrained", net, lambda raw: raw / 255, {})
    x = (torch.rand(rows, CHANNELS, SIDE, SIDE) * 255).round()
    y = model.logits(x).argmax(1)
    budget = ball("l0", VALUES, torch.tensor(1.0), "values")
    threat = Threat(family="l0", budget=budget, domain=(Box(low=0.0, high=255.0),), goal=AnyError())
    before = _peak()
    done = attack_rows(make_attack("jsma"), model, x, y, threat)
    won = int(done.verdict.won.sum())
    print(f"{rows} rows: {before:.0f} MiB before, {_peak():.0f} MiB at the most; {won} rows won by {VALUES:g} values")


def _peak() -> float:
    """Return the process's peak memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
