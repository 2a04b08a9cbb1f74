"""A tiny bundle for a first look: normal or pneumonia on small chest X-rays, trained in under a minute.

Where PneumoniaMNIST is on this machine it is trained on that; elsewhere on drawn shapes (a blot on a chest-like
background, or none), and then its title says so. It is for trying the guard and for nothing clinical.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from titer.core.model import Model, network_model
from titer.core.plugins import load_data, make
from titer.core.protocols import TrainingData
from titer.core.randomness import generator
from titer.core.record import Recipe, Samples
from titer.guard.judge.build import DETECTORS, Built, Description, build
from titer.guard.judge.bundle import InputPart
from titer.modalities._files import locate
from titer.modalities._pneumonia import FILE
from titer.training.loop import fit, fresh
from titer.training.objectives import standard

SIDE = 28
CLASSES = ("normal", "pneumonia")
_RANGE = (0.0, 255.0)
_NETWORK = {"name": "small-cnn", "width": 8}
_RECIPE = Recipe(epochs=8, batch_size=128, learning_rate=5e-3, weight_decay=0.1, class_weights="balanced")


def demo_bundle(folder: Path, seed: int = 0) -> Built:
    """Train and write the demo bundle into a new folder.

    Raises:
        SpecError: the folder is not empty.
    """
    model, data, title = demo_model(seed)
    about = Description(
        name="demo-chest",
        version="1",
        title=title,
        classes=CLASSES,
        input=InputPart(kind="image", shape=(1, SIDE, SIDE), unit="grey levels", value_range=_RANGE, window="stored"),
        network=_NETWORK,
        preprocess=("unit", *_RANGE),
    )
    return build(folder, about, model, data, detectors=DETECTORS, seed=seed)


def demo_model(seed: int) -> tuple[Model, TrainingData, str]:
    """Return the trained model, what it was trained on, and the bundle's title."""
    parts, title = _parts(seed)
    data = TrainingData(
        train=parts["train"],
        validation=parts["validation"],
        classes=len(CLASSES),
        domain=(),
        units={},
        recipe=_RECIPE,
        value_range=_RANGE,
    )
    with torch.random.fork_rng(devices=[]):
        net = fresh(make("networks", _NETWORK)((1, SIDE, SIDE), len(CLASSES)), seed)
    low, high = _RANGE
    blank = network_model("demo-chest", net, lambda x: (x - low) / (high - low), {})
    return fit(blank, net, data, standard(data), seed=seed), data, title


def demo_images(count: int, seed: int = 0) -> Tensor:
    """Return images that the demo model was not trained on, [N, 1, 28, 28] in grey levels 0 to 255."""
    return _parts(seed)[0]["validation"].x[:count]


def _parts(seed: int) -> tuple[dict[str, Samples], str]:
    if locate(FILE) is not None:
        return dict(
            load_data("chest-xray").fixed
        ), "Demo: chest X-rays of 28 pixels (PneumoniaMNIST), not for diagnosis"
    parts = {"train": _drawn(1200, seed), "validation": _drawn(300, seed + 1)}
    return parts, "Demo: drawn shapes, no chest X-rays, not for diagnosis"


def _drawn(count: int, seed: int) -> Samples:
    """Return drawn images: two dark fields on grey, and in every second one a bright blot in one of them."""
    rng = generator(seed, "drawn")
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    fields = _blot(rows, columns, 14.0, 8.0, 6.0) + _blot(rows, columns, 14.0, 20.0, 6.0)
    y = torch.arange(count) % 2
    x = 150 - 70 * fields + 12 * torch.randn((count, SIDE, SIDE), generator=rng)
    places = torch.rand((count, 2), generator=rng) * 8 + torch.tensor([10.0, 6.0])
    for place in range(1, count, 2):
        x[place] += 60 * _blot(rows, columns, float(places[place, 0]), float(places[place, 1]), 2.5)
    ids = tuple(f"drawn-{seed}-{place}" for place in range(count))
    return Samples(x=x.clamp(*_RANGE).unsqueeze(1), y=y, ids=ids, patients=ids)


def _blot(rows: Tensor, columns: Tensor, row: float, column: float, width: float) -> Tensor:
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
