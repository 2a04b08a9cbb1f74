"""What a case study runs: its settings, the attacks, and the rows of layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from titer.core.errors import SpecError
from titer.guard.operate import orthanc

FEWEST_IMAGES, MOST_IMAGES = 4, 300
BUDGETS: tuple[tuple[float, str], ...] = ((8.0, "/255"), (0.01, "range"))
"""8/255 is the usual budget of imaging papers; 0.01 of the range is that of the published hospital case."""
HARDENING: dict[str, Any] = {
    "name": "adversarial-training",
    "eps": 4.0,
    "unit": "/255",
    "attack": {"name": "pgd", "steps": 3, "step": 0.5},
    "learning_rate": 2e-3,
}
"""The budget of training lies between the two that are attacked with; chosen beforehand, not by the outcome."""
MONITORS: tuple[Any, ...] = ("low-confidence", "shift", {"name": "reconstruction", "epochs": 8, "width": 8})
MASKING: dict[str, Any] = {"name": "feature-masking", "keep": 0.5}
RATE = 0.05
READER = 0.9
"""An imperfect reader names so large a share of what is flagged rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a case study: `images` are sent in each condition, `side` is their height and width in pixels."""

    folder: Path
    images: int = 80
    epochs: int = 20
    side: int = 64
    seed: int = 2026
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One attack at one budget: `label` names both; an adaptive one knows the detectors as well as the model."""

    label: str
    attack: dict[str, Any]
    eps: float
    unit: str
    adaptive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One guard: the model behind it (`standard` or `hardened`), its layers, and whether its bundle holds detectors."""

    name: str
    model: str
    layers: tuple[str, ...]
    monitors: bool = False


STRIKES: tuple[Strike, ...] = tuple(
    Strike(label=f"{name.upper()} {eps:g}{'' if unit.startswith('/') else ' '}{unit}", attack=spec, eps=eps, unit=unit)
    for eps, unit in BUDGETS
    for name, spec in (("fgsm", {"name": "fgsm"}), ("bim", {"name": "bim", "steps": 10, "step": 0.2}))
)
ADAPTIVE = Strike(
    label="adaptive PGD 8/255", attack={"name": "pgd", "steps": 20}, eps=8.0, unit="/255", adaptive=True
)  # fmt: skip
STAGES: tuple[Stage, ...] = (
    Stage(name="guard, every layer off", model="standard", layers=("model",)),
    Stage(name="+ adversarial training", model="hardened", layers=("model",)),
    Stage(name="+ file checks", model="hardened", layers=("checks", "model")),
    Stage(
        name="+ monitors",
        model="hardened",
        layers=("checks", "detectors", "model", "explanations"),
        monitors=True,
    ),
)


def check(settings: Settings) -> None:
    """Refuse what cannot run, before anything is trained.

    Raises:
        SpecError: a setting out of range, a folder that is not empty, or a program that is not installed.
    """
    limits = {
        "--images": (settings.images, FEWEST_IMAGES, MOST_IMAGES),
        "--epochs": (settings.epochs, 1, 1000),
        "--side": (settings.side, 32, 224),
        "--workers": (settings.workers, 1, 64),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise SpecError(f"{name} = {value}: allowed is {least} to {most}")
    if settings.folder.exists() and (not settings.folder.is_dir() or any(settings.folder.iterdir())):
        raise SpecError(f"DIR = {str(settings.folder)!r} is not empty: name a new folder")
    if which("storescu") is None:
        raise SpecError("storescu is not installed: apt-get install dcmtk")
    orthanc.program()
