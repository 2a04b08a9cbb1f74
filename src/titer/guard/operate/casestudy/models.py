"""The models of the case study: a small network on brain MRI, its adversarially trained and its masked form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from titer.core.model import Model, network_model
from titer.core.places import weights_cache
from titer.core.plugins import load_data, make, make_defense
from titer.core.protocols import TrainingData
from titer.core.randomness import derive, generator
from titer.core.record import ClinicalData, Recipe, Samples
from titer.guard.judge.build import Description, build
from titer.guard.judge.bundle import InputPart
from titer.guard.operate.casestudy.plan import HARDENING, MASKING, MONITORS, RATE, Settings, Stage
from titer.training.loop import fit, fresh
from titer.training.objectives import standard

NETWORK = {"name": "small-cnn", "width": 8}
_RANGE = (0.0, 255.0)
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The data in three parts, no patient in two of them; `test` are the images that the modality sends."""

    data: ClinicalData
    training: TrainingData
    test: Samples


def cohort(settings: Settings) -> Cohort:
    """Load brain MRI and part it by patient.

    Raises:
        SpecError: the data are not on this machine.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    data = load_data({"name": "brain-mri", "side": settings.side})
    assert data.pool is not None
    pool = data.pool
    folds = StratifiedGroupKFold(n_splits=_FOLDS, shuffle=True, random_state=settings.seed % 2**32)
    tested, held, *learned = (rows for _, rows in folds.split(pool.y.numpy(), pool.y.numpy(), np.array(pool.patients)))
    recipe = Recipe(
        epochs=settings.epochs, batch_size=64, learning_rate=2e-3, weight_decay=0.1, class_weights="balanced"
    )  # fmt: skip
    training = TrainingData(
        train=pool.take(np.concatenate(learned)),
        validation=pool.take(held),
        classes=len(data.classes),
        domain=data.domain,
        units={name: torch.tensor(float(size)) for name, size in data.units.items() if size != "sd"},
        recipe=recipe,
        value_range=data.value_range,
        cache=weights_cache(),
    )
    part = pool.take(tested)
    return Cohort(data=data, training=training, test=part.take(chosen(part, settings.images, settings.seed)))


def chosen(part: Samples, count: int, seed: int) -> list[int]:
    """Return rows of a part, the classes in turn, and of each patient one: so that they are independent."""
    order = torch.randperm(len(part), generator=generator(seed, "sent")).tolist()
    waiting: dict[int, list[int]] = {}
    seen: set[str] = set()
    for row in order:
        if part.patients[row] not in seen:
            seen.add(part.patients[row])
            waiting.setdefault(int(part.y[row]), []).append(row)
    turns = [row for turn in range(len(part)) for queue in waiting.values() for row in queue[turn : turn + 1]]
    return sorted(turns[:count])


def trained(cohort: Cohort, settings: Settings) -> dict[str, Model]:
    """Return the models by name: `standard`, `hardened` and `masked`; weights are cached."""
    seed, train = settings.seed, cohort.training
    with torch.random.fork_rng(devices=[]):
        blank = make("networks", NETWORK)((1, settings.side, settings.side), train.classes)
        net = fresh(blank, derive(seed, "network"))
    bare = network_model("brain-mri", net, unit, {})
    plain = fit(bare, net, train, standard(train), seed=derive(seed, "training"))
    spec = {**HARDENING, "epochs": max(1, settings.epochs // 2)}
    hardened = make_defense(spec)(plain, train, rng=generator(seed, "hardening"))
    masked = make_defense(MASKING)(hardened, train, rng=generator(seed, "masking"))
    return {"standard": plain, "hardened": hardened, "masked": masked}


def unit(x: Tensor) -> Tensor:
    """Return grey levels as shares of their range."""
    return (x - _RANGE[0]) / (_RANGE[1] - _RANGE[0])


def write_bundle(folder: Path, stage: Stage, models: Mapping[str, Model], cohort: Cohort, settings: Settings) -> None:
    """Write the bundle of a stage: its model, with the detectors or without."""
    about = Description(
        name="brain-mri",
        version="1",
        title="Case study: MR slices of the head, not for diagnosis",
        classes=cohort.data.classes,
        input=InputPart(
            kind="image", shape=(1, settings.side, settings.side), unit="grey levels", value_range=_RANGE,
            window="stored",
        ),
        network=NETWORK,
        preprocess=("unit", *_RANGE),
    )  # fmt: skip
    detectors = MONITORS if stage.monitors else ()
    build(
        folder, about, models[stage.model], cohort.training, detectors=detectors, rate=RATE,
        seed=derive(settings.seed, "monitors"),
    )  # fmt: skip
