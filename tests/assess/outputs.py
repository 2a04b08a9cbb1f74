"""Small data sets of each kind of output, as a clinic would store them, and plans for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 16
FINDINGS = ("effusion", "nodule", "mass")

_PLAN = """
name = "{task}"
trials = 1
seed = 3
workers = 1
attacks = {attacks}

[data]
name = "arrays"
file = "{task}.npz"
task = "{task}"
{data}

[training]
epochs = {epochs}
batch_size = 32
learning_rate = 0.01

[[models]]
label = "net"
network = {network}
{threats}
{defenses}
"""

_NETWORKS = {
    "labels": '{ name = "small-cnn", width = 4 }',
    "value": '{ name = "mlp", hidden = [32] }',
    "mask": '{ name = "unet", width = 4, depth = 2 }',
}
_EPOCHS = {"labels": 15, "value": 30, "mask": 15}
_DATA = {"labels": "", "value": 'tolerance = 12.0\nclasses = ["bone age in months"]', "mask": ""}


def write_labels(folder: Path, count: int = 240) -> None:
    """Images of grey levels with up to three bright marks, each a finding of its own that stands where it likes."""
    rng = np.random.default_rng(0)
    images = rng.normal(90, 12, (count, SIDE, SIDE))
    labels = rng.integers(0, 2, (count, 3))
    for row, (effusion, nodule, mass) in enumerate(labels):
        images[row, 12:, :] += 60 * effusion
        images[row, 2:6, 2:6] += 80 * nodule
        images[row, 2:10, 9:15] += 50 * mass
    np.savez(
        folder / "labels.npz",
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels,
        class_names=np.array(FINDINGS),
        patient_id=np.arange(count) // 2,
        sex=np.array(["F", "M"] * (count // 2)),
    )


def write_value(folder: Path, count: int = 400) -> None:
    """A table of six measures whose weighted sum is an age in months, about 120 with an SD of 40."""
    rng = np.random.default_rng(1)
    table = rng.normal(10, 2, (count, 6))
    weights = np.array([8.0, -6.0, 10.0, 4.0, -7.0, 9.0])
    age = 120 + (table - 10) @ weights + rng.normal(0, 3, count)
    np.savez(folder / "value.npz", x=table, y=age, sex=np.array(["F", "M"] * (count // 2)))


def write_mask(folder: Path, count: int = 120) -> None:
    """Images with one bright round lesion, and its mask; every tenth image has none."""
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = rng.normal(80, 12, (count, SIDE, SIDE))
    masks = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
    for i in range(count):
        if i % 10:
            top, left = rng.uniform(4, SIDE - 4, 2)
            masks[i] = (rows - top) ** 2 + (columns - left) ** 2 < rng.uniform(2.5, 4) ** 2
    images += 60 * masks
    np.savez(folder / "mask.npz", images=images.clip(0, 255).astype(np.uint8), labels=masks)


WRITERS = {"labels": write_labels, "value": write_value, "mask": write_mask}


def plan_text(
    task: str, threats: list[str], attacks: str = '[{ name = "pgd", steps = 20 }]', defenses: str = "", **changes: str
) -> str:
    """Return a plan on the task's data; `threats` are the lines of each table."""
    tables = "".join(f"\n[[threats]]\n{one}\n" for one in threats)
    content = {"network": _NETWORKS[task], "epochs": _EPOCHS[task], "data": _DATA[task], **changes}
    return _PLAN.format(task=task, threats=tables, attacks=attacks, defenses=defenses, **content)
