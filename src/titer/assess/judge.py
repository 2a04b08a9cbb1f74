"""The harness: the attack proposes, the judge projects, puts back, predicts and counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from titer.core.errors import ContractError
from titer.core.model import Model
from titer.core.protocols import Attack
from titer.core.randomness import generator
from titer.core.threat import Threat
from titer.engine.metering import Meter
from titer.threats.balls import sizes

_JUDGED_ROWS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The judge's view of one input a row: classes int64[N] and probabilities float32[N, K]."""

    classes: Tensor
    probabilities: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What an attack proposed for all rows, inside the domain; rows it need not attack are the clean ones.

    `attacked` bool[N]: the rows the attack was given; `put_back` bool[N]: rows whose proposal broke a rule.
    """

    x_adv: Tensor
    attacked: Tensor
    put_back: Tensor
    forwards: Tensor
    backwards: Tensor
    attack_cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of every row for one judged model under one threat; arrays of length N."""

    prediction: Prediction
    won: Tensor
    put_back: Tensor
    distances: Mapping[str, Tensor]


def predict(model: Model, x: Tensor, *, rng: Generator) -> Prediction:
    """Return the judge's predictions for `x` [N, ...]; a randomised model is drawn from the judge's own source."""
    with torch.no_grad():
        logits = model.logits if model.draw is None else model.draw(rng)
        outputs = torch.cat([logits(part) for part in x.split(_JUDGED_ROWS)]).float()
    return Prediction(classes=outputs.argmax(1), probabilities=outputs.softmax(1))


def predict_proposals(model: Model, clean: Prediction, proposal: Proposal, *, rng: Generator) -> Prediction:
    """Return the judge's predictions of the proposals; rows that were not attacked keep their clean ones."""
    rows = proposal.attacked.nonzero().flatten()
    if not len(rows):
        return clean
    found = predict(model, proposal.x_adv[rows], rng=rng)
    return Prediction(
        classes=clean.classes.index_copy(0, rows, found.classes),
        probabilities=clean.probabilities.index_copy(0, rows, found.probabilities),
    )


def propose(
    attack: Attack,
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    already_won: Tensor,
    *,
    minimal: bool,
    rng: Generator,
) -> Proposal:
    """Let the attack work on the rows that are not won yet, and bring its proposals inside the threat.

    Args:
        attack: sees the model under the threat's access only, every pass metered.
        already_won: bool[N], rows whose clean input reaches the goal already; they cost nothing.
        minimal: a least-perturbation attack: held to the domain's rules here, to each eps later.

    Raises:
        ContractError: the attack returned another shape, type or device.
        Incompatible: the attack cannot run on this model or threat.
    """
    rows = (~already_won).nonzero().flatten()
    clean = x[rows]
    meter = Meter(len(rows))
    cpu = time.process_time()
    found = attack(meter.watch(model.limited(threat.access)), clean, y[rows], threat, rng=rng) if len(rows) else clean
    spent = time.process_time() - cpu
    if found.shape != clean.shape or found.dtype != clean.dtype or found.device != clean.device:
        raise ContractError(
            f"an attack returned {found.dtype} {tuple(found.shape)} on {found.device}, "
            f"not {clean.dtype} {tuple(clean.shape)} on {clean.device}"
        )
    inside, back = _inside(found.detach(), clean, threat, minimal=minimal)
    forwards, backwards = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
    put_back = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    forwards[rows.cpu()], backwards[rows.cpu()] = meter.forwards, meter.backwards
    put_back[rows] = back
    return Proposal(
        x_adv=x.index_copy(0, rows, inside),
        attacked=~already_won,
        put_back=put_back,
        forwards=forwards,
        backwards=backwards,
        attack_cpu_seconds=spent,
    )


def _inside(found: Tensor, clean: Tensor, threat: Threat, *, minimal: bool) -> tuple[Tensor, Tensor]:
    """Return the proposals inside the threat and bool[n], which had to be put back to the clean row."""
    holds: Callable[[Tensor, Tensor], Tensor] = threat.allowed if minimal else threat.contains
    # A proposal that is not a number is a broken attack: it is put back and told, never mended by the projection.
    broken = ~found.flatten(1).isfinite().all(1)
    outside = ~holds(found, clean)
    if bool(outside.any()) and not minimal:
        found = found.clone()
        found[outside] = threat.project(found[outside].nan_to_num(), clean[outside])
        outside = ~holds(found, clean)
    outside = outside | broken
    shape = (-1, *[1] * (clean.dim() - 1))
    return torch.where(outside.view(shape), clean, found), outside


def verdict(
    target: Model,
    x: Tensor,
    y: Tensor,
    clean: Prediction,
    proposal: Proposal,
    threat: Threat,
    *,
    minimal: bool,
    found: Prediction | None = None,
    rng: Generator,
) -> Verdict:
    """Judge the proposals on `target` under one threat.

    A row that is misclassified when clean is won without any change. A least-perturbation find beyond eps is not
    used: the clean row stands in its place, and the find's distance is kept.

    Args:
        found: the target's predictions of the proposals, where they are known already.
    """
    found = found or predict_proposals(target, clean, proposal, rng=rng)
    wrong = reached(threat, clean, y)
    hit = reached(threat, found, y) & proposal.attacked
    scale = threat.budget.scaled(x)
    distances = sizes(proposal.x_adv, x, scale)
    usable = proposal.attacked
    if minimal:
        usable = usable & threat.budget.contains(proposal.x_adv, x)
        missed = proposal.attacked & ~hit
        distances = {norm: value.masked_fill(missed, float("inf")) for norm, value in distances.items()}
    used = usable & ~wrong
    classes = torch.where(used, found.classes, clean.classes)
    probabilities = torch.where(used.unsqueeze(1), found.probabilities, clean.probabilities)
    distances = {norm: value.masked_fill(wrong, 0.0) for norm, value in distances.items()}
    return Verdict(
        prediction=Prediction(classes=classes, probabilities=probabilities),
        won=wrong | (hit & usable),
        put_back=proposal.put_back,
        distances=distances,
    )


def reached(threat: Threat, prediction: Prediction, y: Tensor) -> Tensor:
    """Return bool[N]: the goal is reached by these predictions; goals are judged on the decision alone."""
    decision = torch.nn.functional.one_hot(prediction.classes, prediction.probabilities.shape[1]).float()
    return threat.goal.won(decision, y)


def as_columns(
    verdict: Verdict, clean: Prediction, proposal: Proposal | None, ids: Sequence[int]
) -> dict[str, np.ndarray | list[list[float]]]:
    """Return a verdict as columns of the outcomes table; `ids` orders the rows."""
    rows = torch.as_tensor(list(ids))
    nothing = torch.zeros(len(rows), dtype=torch.float64)

    def array(value: Tensor) -> np.ndarray:
        return value.detach().cpu()[rows].numpy()

    return {
        "clean_prediction": array(clean.classes),
        "adversarial_prediction": array(verdict.prediction.classes),
        "clean_probabilities": array(clean.probabilities).tolist(),
        "adversarial_probabilities": array(verdict.prediction.probabilities).tolist(),
        "won": array(verdict.won),
        "put_back": array(verdict.put_back),
        **{f"distance_{norm}": array(value.double()) for norm, value in verdict.distances.items()},
        "forwards": array(nothing if proposal is None else proposal.forwards),
        "backwards": array(nothing if proposal is None else proposal.backwards),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """What `attack_rows` returns: clean predictions, the judged proposals, and the verdict."""

    clean: Prediction
    proposal: Proposal
    verdict: Verdict

    @property
    def robust_accuracy(self) -> float:
        """Share of rows that are right when clean and withstood the attack."""
        return float((~self.verdict.won).float().mean())


def attack_rows(
    attack: Attack, model: Model, x: Tensor, y: Tensor, threat: Threat, *, minimal: bool = False, seed: int = 0
) -> Attacked:
    """Attack rows `x` [N, ...] with labels `y` int64[N] and judge the outcome, as an assessment does.

    Attack and judge draw from different seeds. See `propose` for `minimal` and the errors.
    """
    clean = predict(model, x, rng=generator(seed, "clean"))
    won = reached(threat, clean, y)
    found = propose(attack, model, x, y, threat, won, minimal=minimal, rng=generator(seed, "attack"))
    judged = verdict(model, x, y, clean, found, threat, minimal=minimal, rng=generator(seed, "judge"))
    return Attacked(clean=clean, proposal=found, verdict=judged)
