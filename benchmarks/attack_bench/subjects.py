"""The attacked models and rows, made through Titer and written where every library finds them.

A subject's folder holds `network.pt` (inputs in [0, 1], default memory layout), `rows.npz` (`x` float32 in [0, 1], `y`)
and `subject.json`: its classes, clean accuracy, and budgets in 255ths of the range.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attack_bench.brain_mri import data_folder, mri_plan
from attack_bench.budgets import kept_under_pgd, middle_budget

HERE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A plan's model: `defense` is the label of a defence of the plan, or empty; `rows` are attacked at most."""

    plan: str
    defense: str
    rows: int


SOURCES = {
    "cnn": Source(plan="plans/chest-xray.toml", defense="", rows=500),
    "cnn-at": Source(plan="plans/chest-xray.toml", defense="adversarial training", rows=500),
    "resnet18": Source(plan="plans/chest-xray-resnet18.toml", defense="", rows=125),
    "resnet18-at": Source(plan="plans/chest-xray-resnet18.toml", defense="adversarial training", rows=125),
    "brain-mri": Source(plan="brain-mri", defense="", rows=500),
    "brain-mri-at": Source(plan="brain-mri", defense="adversarial training", rows=500),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `subject.json` holds; `eps` maps a level to 255ths of the range, `kept` to the share right under PGD-20."""

    name: str
    digest: str
    classes: int
    rows: int
    clean_accuracy: float
    eps: dict[str, float]
    kept: dict[str, float]


def facts(folder: Path) -> Facts:
    """Read a prepared subject."""
    return Facts(**json.loads((folder / "subject.json").read_text()))


def load_rows(folder: Path, count: int | None) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network, x [N, C, H, W] in [0, 1] and y int64[N] of the first `count` rows."""
    net: nn.Module = torch.load(folder / "network.pt", weights_only=False)  # written by `prepare`
    with np.load(folder / "rows.npz") as kept:
        return net.eval(), torch.from_numpy(kept["x"][:count]), torch.from_numpy(kept["y"][:count])


def is_available(name: str, work: Path) -> bool:
    """Return whether the subject is there or can be made: the brain MRI images are not to be had everywhere."""
    made = (work / "subjects" / name / "subject.json").is_file()
    return made or SOURCES[name].plan.endswith(".toml") or data_folder().is_dir()


def prepare(name: str, work: Path) -> Path:
    """Make the subject where it is not there yet: train or load its model, choose its rows and budgets."""
    folder = work / "subjects" / name
    if not (folder / "subject.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        net, x, y, classes = _made(SOURCES[name], work)
        torch.save(net, folder / "network.pt")
        np.savez(folder / "rows.npz", x=x.numpy(), y=y.numpy())
        content = (folder / "network.pt").read_bytes() + (folder / "rows.npz").read_bytes()
        found = _facts(name, hashlib.sha256(content).hexdigest()[:16], net, x, y, classes)
        (folder / "subject.json").write_text(json.dumps(asdict(found), indent=1))
    return folder


def _made(source: Source, work: Path) -> tuple[nn.Module, Tensor, Tensor, int]:
    from titer.assess.plan import load_plan
    from titer.assess.trial import open_trial
    from titer.core.places import weights_cache

    path = HERE / source.plan if source.plan.endswith(".toml") else mri_plan(work)
    plan = load_plan(path)
    trial = open_trial(plan, 0, cache=weights_cache())
    chain = next((one.chain for one in plan.defenses if source.defense and one.label == source.defense), ())
    assert bool(chain) == bool(source.defense), f"{path} has no defence {source.defense!r}"
    model = trial.defended(plan.models[0], chain)
    assert model.net is not None
    test = trial.split.test
    test = test.take(list(np.random.default_rng(0).permutation(len(test))[: source.rows]))
    # Titer trains in channels_last; every library gets the layout that a network has when nobody thought of it.
    net = model.net.cpu().float().to(memory_format=torch.contiguous_format).eval()
    return net, test.x / 255, test.y, len(trial.data.classes)


def _facts(name: str, digest: str, net: nn.Module, x: Tensor, y: Tensor, classes: int) -> Facts:
    middle, kept = middle_budget(net, x, y)
    return Facts(
        name=name,
        digest=digest,
        classes=classes,
        rows=len(x),
        clean_accuracy=kept_under_pgd(net, x, y, 0.0, steps=0),
        eps={"8": 8.0, "mid": middle},
        kept={"8": kept_under_pgd(net, x, y, 8.0), "mid": kept},
    )
