"""The guard's judge, measured: what a verdict costs beside the bare model, and what its detectors catch.

Prints tables; asserts nothing. Run it on an idle machine: `python benchmarks/guard_judge.py [latency] [attacks]`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from titer.core.model import Model, network_model
from titer.core.plugins import load_data, make, make_attack
from titer.core.protocols import TrainingData
from titer.core.record import Recipe, Samples
from titer.core.threat import Threat
from titer.engine.features import in_parts
from titer.engine.watching import Watch, evading, guarded
from titer.guard import keys
from titer.guard.context import opened
from titer.guard.home import Home
from titer.guard.judge.build import DETECTORS, Description, build
from titer.guard.judge.bundle import InputPart
from titer.guard.judge.inference_api import _Service
from titer.guard.judge.messages import Ask
from titer.guard.judge.models import Loaded, load
from titer.guard.judge.worker import Worker
from titer.guard.judge.workers import Workers, share, unshare
from titer.guard.settings import JudgeSettings
from titer.guard.settings import load as load_settings
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.unseen import unseen
from titer.training.loop import fit
from titer.training.objectives import standard

RANGE = (0.0, 255.0)
CLASSES = ("normal", "pneumonia")
REPEATS = 300
ATTACKED = 200
STRONG = (
    "low-confidence",
    {"name": "reconstruction", "epochs": 8},
    {"name": "ensemble-disagreement", "members": 1},
)


def unit(x: Tensor) -> Tensor:
    """Return grey levels as shares of their range."""
    return (x - RANGE[0]) / (RANGE[1] - RANGE[0])


def described(network: object, side: int) -> Description:
    """Return what the bundle says of itself."""
    return Description(
        name="bench",
        version="1",
        title="benchmark",
        classes=CLASSES,
        input=InputPart(kind="image", shape=(1, side, side), unit="grey levels", value_range=RANGE),
        network=network,  # type: ignore[arg-type]
        preprocess=("unit", *RANGE),
    )


def untrained(network: object, side: int) -> tuple[Model, TrainingData]:
    """A model of that size and clean rows to calibrate on: latency does not ask what was learned."""
    torch.manual_seed(0)
    net = make("networks", network)((1, side, side), len(CLASSES))
    rng = torch.Generator().manual_seed(0)

    def part(count: int) -> Samples:
        names = tuple(str(one) for one in range(count))
        x = 255 * torch.rand((count, 1, side, side), generator=rng)
        return Samples(x=x, y=torch.arange(count) % 2, ids=names, patients=names)

    data = TrainingData(
        train=part(80), validation=part(60), classes=2, domain=(), units={}, recipe=Recipe(), value_range=RANGE
    )
    return network_model("bench", net, unit, {}), data


def milliseconds(ask: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Median and 99th percentile of the wall time of a call."""
    times = []
    for turn in range(repeats + 20):
        began = time.perf_counter()
        ask()
        if turn >= 20:
            times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times)), float(np.percentile(times, 99))


def latency(folder: Path) -> None:
    """Print what a verdict costs."""
    print("\n## Latency, batch 1, one torch thread, milliseconds (p50 / p99)\n")
    print("| network | pixels | bare model, in process | in process, detectors | worker, model alone | "
          "worker, default detectors | ratio (worker p50) | durable verdict at 5/s | worker MiB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    sizes = [("small-cnn", 28), ("small-cnn", 224), ("resnet18", 64), ("small-cnn", 128)]
    for network, side in sizes:
        place = folder / f"{network}-{side}"
        model, data = untrained(network, side)
        build(place, described(network, side), model, data)
        row = data.validation.x[:1].numpy()
        loaded = load(place)
        bare = milliseconds(lambda m=loaded, r=row: _pass(m, r, watched=False))
        seen = milliseconds(lambda m=loaded, r=row: _pass(m, r, watched=True))
        worker = Worker(place, JudgeSettings())
        alone, full = _in_turn(worker, row)
        memory = psutil.Process(worker.pid).memory_info().rss / 2**20
        worker.stop()
        verdict = _durable(folder, place, row)
        shown = [f"{one[0]:.2f} / {one[1]:.2f}" for one in (bare, seen, alone, full)]
        print(f"| {network} | {side} | {' | '.join(shown)} | {full[0] / alone[0]:.2f} | "
              f"{verdict[0]:.1f} / {verdict[1]:.1f} | {memory:.0f} |", flush=True)  # fmt: skip


def _pass(loaded: Loaded, row: np.ndarray, *, watched: bool) -> None:
    x = torch.from_numpy(row.copy())
    with torch.no_grad():
        loaded.model.logits(x)
        for alarm in loaded.alarms if watched else ():
            alarm.score(x)


def _in_turn(worker: Worker, row: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """The model alone and with its detectors, by turns, so that other load falls on both."""
    times: dict[tuple[int, ...] | None, list[float]] = {(): [], None: []}
    for turn in range(REPEATS + 20):
        for watched, kept in times.items():
            began = time.perf_counter()
            worker.ask(Ask(rows=row, watched=watched))
            if turn >= 20:
                kept.append(1000 * (time.perf_counter() - began))
    alone, full = ((float(np.median(one)), float(np.percentile(one, 99))) for one in times.values())
    return alone, full


def _durable(folder: Path, place: Path, row: np.ndarray) -> tuple[float, float]:
    """A request of the inference API until its verdict is durable, five a second."""
    home = Home(Path(tempfile.mkdtemp(dir=folder)))
    keys.make(home.keys)
    home.settings.write_text("[judge]\nrequests_per_minute = 100000\nqueries_per_day = 1000000\n")
    home.models.mkdir()
    (home.models / "bench").symlink_to(place)
    context = opened(home, load_settings(home))
    workers = Workers(context)
    share(context, workers)
    service = _Service(context)
    tensor = {"name": "input", "shape": list(row.shape), "datatype": "FP32", "data": row.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    times = []
    for turn in range(105):
        began = time.perf_counter()
        service.infer("bench", body, "bench")
        spent = time.perf_counter() - began
        times += [1000 * spent] if turn >= 5 else []
        time.sleep(max(0.2 - spent, 0))
    unshare(context)
    workers.stop()
    context.close()
    return float(np.median(times)), float(np.percentile(times, 99))


@dataclass(frozen=True)
class Full:
    """Any error, never enough: the attack goes on to its last step."""

    inner: AnyError = AnyError()  # noqa: RUF009 - frozen

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of any error."""
        return self.inner.loss(logits, y)

    def won(self, logits: Tensor, y: Tensor) -> Tensor:
        """Say of no row that it has won."""
        return torch.zeros_like(self.inner.won(logits, y))


def attacks(folder: Path) -> None:
    """Print what the detectors catch."""
    parts = load_data("chest-xray").fixed
    recipe = Recipe(
        epochs=40, batch_size=128, learning_rate=5e-3, patience=12, weight_decay=0.1, class_weights="balanced"
    )
    data = TrainingData(
        train=parts["train"], validation=parts["validation"], classes=2, domain=(), units={}, recipe=recipe,
        value_range=RANGE,
    )  # fmt: skip
    torch.manual_seed(0)
    net = make("networks", "small-cnn")((1, 28, 28), 2)
    model = fit(network_model("bench", net, unit, {}), net, data, standard(data), seed=0)
    test = parts["test"].take(range(0, len(parts["test"]), len(parts["test"]) // ATTACKED))
    print(
        f"\n## PGD 8/255, 40 steps, chest X-rays 28 px, thresholds for 5 % of clean verdicts, {len(test)} test images\n"
    )
    print("| detectors | clean validation held | clean test held | right when clean | fooled | caught, first win | "
          "caught, all steps | got through, knows the detectors |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for name, specs in (("default", DETECTORS), ("three", STRONG)):
        place = folder / f"attacked-{name}"
        build(place, described("small-cnn", 28), model, data, detectors=specs)
        loaded = load(place)
        print(f"| {' + '.join(alarm.name for alarm in loaded.alarms)} | {_caught(loaded, data, test)} |", flush=True)


def _caught(loaded: Loaded, data: TrainingData, test: Samples) -> str:
    plain = Threat(
        family="linf", budget=ball("linf", 8.0, torch.tensor(1.0), "/255"), domain=(_box(),), goal=AnyError()
    )
    model = loaded.model
    right = model.logits(test.x).argmax(1) == test.y
    x, y = test.x[right], test.y[right]
    clean = [_held(loaded, part).float().mean() for part in (data.validation.x, test.x)]
    shares = []
    for threat in (plain, replace(plain, goal=Full())):
        rng = torch.Generator().manual_seed(0)
        found = make_attack({"name": "pgd", "steps": 40})(model, x, y, threat, rng=rng)
        won = model.logits(found).argmax(1) != y
        shares.append((won.float().mean(), _held(loaded, found)[won].float().mean()))
    through = _through(loaded, x, y, plain)
    cells = [*clean, right.float().mean(), shares[1][0], shares[0][1], shares[1][1], through]
    return " | ".join(f"{100 * float(one):.1f} %" for one in cells)


def _held(loaded: Loaded, x: Tensor) -> Tensor:
    limits = loaded.limits(1)
    return torch.stack([~(in_parts(one.score, x) <= limits[one.name]) for one in loaded.alarms]).any(0)


def _through(loaded: Loaded, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """The share of images with a wrong answer and no alarm, by an attacker who climbs both."""
    limits = loaded.limits(1)
    watches = tuple(
        Watch(alarm=one, threshold=limits[one.name], spread=float(limits[one.name] - np.median(loaded.clean[:, place])))
        for place, one in enumerate(loaded.alarms)
    )
    rng = torch.Generator().manual_seed(1)
    attack = evading(make_attack({"name": "pgd", "steps": 40}))
    found = attack(guarded(loaded.model, watches), x, y, unseen(threat, loaded.model.output), rng=rng)
    fooled = loaded.model.logits(found).argmax(1) != y
    return (fooled & ~_held(loaded, found)).float().mean()


def _box() -> object:
    from titer.threats.rules import Box

    return Box(low=RANGE[0], high=RANGE[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or ["latency", "attacks"]
    with tempfile.TemporaryDirectory() as where:
        if "latency" in wanted:
            latency(Path(where))
        if "attacks" in wanted:
            attacks(Path(where))
