"""Tiny plans for the tests of the assessment."""

from __future__ import annotations

from pathlib import Path

from titer.assess.plan import Plan, load_plan

TINY = """
name = "tiny"
trials = 2
seed = 7
attacks = ["fgsm", { name = "pgd", steps = 20 }, "deepfool"]

[data]
name = "cytology"

[training]
epochs = 25
batch_size = 32
learning_rate = 0.01

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [16] }

[[threats]]
norm = "linf"
eps = [0.25, 0.5]
unit = "sd"

[[threats]]
norm = "l2"
eps = [1.0]
unit = "sd"

[[defenses]]
label = "at"
defense = { name = "adversarial-training", eps = 0.5, unit = "sd", epochs = 3 }

[[defenses]]
label = "distilled"
defense = { name = "distillation", temperature = 20 }
"""


def tiny(folder: Path, text: str = TINY) -> Plan:
    """Write a plan and load it."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return load_plan(path)
