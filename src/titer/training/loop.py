"""The one training loop, on lightning-fabric: seeds, early stop, class weights, precision, cache."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from titer.core.errors import Incompatible, SpecError
from titer.core.model import Model, network_model
from titer.core.protocols import TrainingData
from titer.core.randomness import derive, generator
from titer.core.record import Samples
from titer.core.threat import Logits
from titer.training.weights import TrainingCost, cached, digest, keep

_KEY_VERSION = 4
_VOLUME_WEIGHTS = 5


class Objective(Protocol):
    """What a training minimises and by what it is stopped."""

    @property
    def key(self) -> str:
        """Everything that tells this objective from another; part of the cache key."""
        ...

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:
        """Return the mean loss of one batch; `logits` runs `net` on raw inputs."""
        ...

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:
        """Return what early stopping keeps the best of, on the validation part."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """Standard training, stopped on validation loss; `weights` float[K] weigh the classes."""

    weights: Tensor | None = None
    temperature: float = 1.0

    @property
    def key(self) -> str:
        """Return the objective's name and settings."""
        return f"cross-entropy/T={self.temperature}/{None if self.weights is None else self.weights.tolist()}"

    def loss(self, net: nn.Module, logits: Logits, x: Tensor, y: Tensor, rng: Generator) -> Tensor:  # noqa: ARG002
        """Return the weighted cross-entropy at the temperature."""
        return functional.cross_entropy(logits(x) / self.temperature, y, weight=self.weights)

    def score(self, net: nn.Module, logits: Logits, part: Samples, rng: Generator) -> float:  # noqa: ARG002
        """Return minus the validation loss."""
        with torch.no_grad():
            outputs = torch.cat([logits(x) for x in torch.split(part.x, 512)]).float() / self.temperature
        return -float(functional.cross_entropy(outputs, part.y, weight=self.weights))


def class_weights(y: Tensor, classes: int, mode: str) -> Tensor | None:
    """Return float[K] inverse to class frequency with mean 1 over the rows, or None for mode `none`."""
    if mode == "none":
        return None
    counts = torch.bincount(y, minlength=classes).clamp_min(1).float()
    return len(y) / (classes * counts)


def fit(model: Model, net: nn.Module, data: TrainingData, objective: Objective, *, seed: int) -> Model:
    """Return `model` with weights trained from `net`'s, or with the cached ones of the same training.

    Args:
        model: gives the preprocessing (`rebuild`); it is not changed.
        net: the starting weights; not changed.
        data: parts, recipe, device and cache.
        objective: what is minimised.
        seed: of batches, of the objective's own draws, and of layers that draw, such as dropout.
    """
    if model.rebuild is None:
        raise Incompatible(f"{model.name} has no network whose weights could be trained")
    key = training_key(model, net, data, objective, seed)
    found = cached(data.cache, key)
    trained = copy.deepcopy(net)
    if found is not None:
        state, cost = found
        trained.load_state_dict(state)
    else:
        # Layers such as dropout draw from the global numbers: seeded here, or no two trainings would be the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "layers"))
            trained, cost = _train(model, trained, data, objective, seed)
        keep(data.cache, key, trained.state_dict(), cost)
    # Channels last in both cases: another layout sums in another order, and a cached model would answer otherwise.
    trained = _channels_last(trained).to(data.device)
    own = {"weights": digest(trained.state_dict()), "training": key}
    return _with_network(model, trained, dict(model.provenance) | own | _spent(model, cost))


def _with_network(model: Model, net: nn.Module, provenance: dict[str, str]) -> Model:
    assert model.rebuild is not None
    logits = model.rebuild(net)
    plain = network_model(model.name, net, lambda x: x, provenance)
    return Model(
        name=model.name,
        logits=logits,
        net=plain.net,
        rebuild=model.rebuild,
        output=model.output,
        provenance=plain.provenance,
    )


def _spent(model: Model, cost: TrainingCost) -> dict[str, str]:
    """Return the costs so far: what was trained before this model counts towards it."""
    before = json.loads(model.provenance.get("costs", "[]"))
    return {"costs": json.dumps([*before, asdict(cost)])}


def training_key(model: Model, net: nn.Module, data: TrainingData, objective: Objective, seed: int) -> str:
    """Return the sha256 of everything that the trained weights depend on."""
    parts = {
        "version": _KEY_VERSION,
        "torch": torch.__version__,
        "start": digest(net.state_dict()),
        "architecture": str(net),
        "build": model.provenance.get("build", ""),
        "train": data.train.digest(),
        "validation": data.validation.digest(),
        "recipe": asdict(data.recipe),
        "objective": objective.key,
        "device": data.device,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _train(
    model: Model, net: nn.Module, data: TrainingData, objective: Objective, seed: int
) -> tuple[nn.Module, TrainingCost]:
    cpu, wall = time.process_time(), time.perf_counter()
    fabric = _fabric(data)
    net = _channels_last(net.train().requires_grad_())
    optimizer, schedule = _optimizer(net, data)
    net, optimizer = fabric.setup_module(net, move_to_device=True).module, fabric.setup_optimizers(optimizer)
    logits = _autocast(fabric, model, net)
    rng = generator(seed, "batches")
    best, best_state, epoch, stale = float("-inf"), copy.deepcopy(net.state_dict()), 0, 0
    for epoch in range(1, data.recipe.epochs + 1):
        _epoch(fabric, net, logits, optimizer, schedule, data, objective, rng)
        net.eval()
        # The same draws for every epoch's score, so that epochs are compared and not draws.
        score = objective.score(net, logits, data.validation, generator(seed, "score"))
        data.progress(f"epoch {epoch} of {data.recipe.epochs}", epoch / data.recipe.epochs)
        stale = 0 if score > best else stale + 1
        if score > best:
            best, best_state = score, copy.deepcopy(net.state_dict())
        if stale >= data.recipe.patience:
            break
    net.load_state_dict(best_state)
    cost = TrainingCost(
        epochs=epoch, cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall
    )  # fmt: skip
    return net, cost


def _channels_last(net: nn.Module) -> nn.Module:
    """Return the network in the layout that is fastest on images; one of volumes is left as it is, it has no such."""
    if any(one.dim() == _VOLUME_WEIGHTS for one in net.parameters()):
        return net
    return cast("nn.Module", net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def _autocast(fabric: Any, model: Model, net: nn.Module) -> Logits:
    """Return logits in the recipe's precision, float32 outside.

    The bare network is run, as fabric's wrapper refuses the input gradients that an attack inside the training needs.
    """
    assert model.rebuild is not None
    plain = model.rebuild(net)

    def logits(x: Tensor) -> Tensor:
        with fabric.autocast():
            return plain(x).float()

    return logits


def _fabric(data: TrainingData) -> Any:
    import logging

    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = "cuda" if data.device.startswith("cuda") else "cpu"
    return Fabric(accelerator=accelerator, devices=1, precision=data.recipe.precision)


def _optimizer(
    net: nn.Module, data: TrainingData
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    recipe = data.recipe
    steps = recipe.epochs * -(-len(data.train) // recipe.batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.learning_rate, total_steps=steps)


def _epoch(
    fabric: Any,
    net: nn.Module,
    logits: Logits,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: TrainingData,
    objective: Objective,
    rng: Generator,
) -> None:
    order = torch.randperm(len(data.train), generator=rng)
    for rows in torch.split(order, data.recipe.batch_size):
        if len(rows) == 1:  # batch norm takes no lone row; the next epoch draws another order
            continue
        net.train()
        loss = objective.loss(net, logits, data.train.x[rows], data.train.y[rows], rng)
        if not bool(loss.isfinite()):
            raise SpecError(
                f"training.learning_rate = {data.recipe.learning_rate:g} is not allowed here: the loss is no longer "
                "finite; a lower rate, or data nearer to zero, keeps it so"
            )
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        schedule.step()


def anew(model: Model) -> Model:
    """Return the model with nothing spent on it yet: of what it cost, nothing goes into weights drawn anew."""
    return replace(model, provenance=dict(model.provenance) | {"costs": "[]"})


def fresh(net: nn.Module, seed: int) -> nn.Module:
    """Return a copy of `net` with weights drawn anew; layers without `reset_parameters` keep theirs."""
    again = copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in again.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return again
