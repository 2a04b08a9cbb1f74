"""The harness: the attack proposes, the judge projects, puts back, predicts and counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from titer.core.errors import ContractError
from titer.core.model import Model
from titer.core.outputs import Output, as_logits, predicted, probabilities
from titer.core.protocols import Attack
from titer.core.randomness import generator
from titer.core.threat import Threat
from titer.engine.fast import Precision, quick
from titer.engine.metering import Meter
from titer.threats.balls import per_row, sizes

_JUDGED_ROWS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The judge's view of one input a row: what is `reported`, in the form of y, and float32[N, ...] `probabilities`.

    Probabilities are [N, K] of classes and [N, L] of findings. A value has none, and those of a mask's pixels are not
    kept: they are [N, 0]. `width` is how many logits the model has a row, or a pixel.
    """

    output: Output
    reported: Tensor
    probabilities: Tensor
    width: int

    @property
    def classes(self) -> Tensor:
        """What is reported; of a classifier, the classes int64[N]."""
        return self.reported

    def where(self, rows: Tensor, other: Prediction) -> Prediction:
        """Return these predictions where `rows` bool[N] is True, and the other ones elsewhere."""
        return replace(
            self,
            reported=torch.where(per_row(rows, self.reported), self.reported, other.reported),
            probabilities=torch.where(rows.unsqueeze(1), self.probabilities, other.probabilities),
        )

    def put(self, rows: Tensor, other: Prediction) -> Prediction:
        """Return these predictions with those of the rows int64[n] taken from `other`, which has n."""
        return replace(
            self,
            reported=self.reported.index_copy(0, rows, other.reported),
            probabilities=self.probabilities.index_copy(0, rows, other.probabilities),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What an attack proposed for all rows, inside the domain; rows it need not attack are the clean ones.

    `attacked` bool[N]: the rows the attack was given; `put_back` bool[N]: rows whose proposal broke a rule; `certified`
    bool[N], where it is known: rows proven safe, which no attack was spent on.
    """

    x_adv: Tensor
    attacked: Tensor
    put_back: Tensor
    forwards: Tensor
    backwards: Tensor
    attack_cpu_seconds: float
    certified: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of every row for one judged model under one threat; arrays of length N.

    `eligible` are the rows that the goal applies to: no finding can be hidden where there is none.
    """

    prediction: Prediction
    won: Tensor
    eligible: Tensor
    put_back: Tensor
    distances: Mapping[str, Tensor]


def predict(model: Model, x: Tensor, *, rng: Generator) -> Prediction:
    """Return the judge's predictions for `x` [N, ...]; a randomised model is drawn from the judge's own source."""
    with torch.no_grad():
        logits = model.logits if model.draw is None else model.draw(rng)
        parts = [_predicted(model.output, logits(part).float()) for part in x.split(_JUDGED_ROWS)]
    reported, chances = (torch.cat([getattr(part, name) for part in parts]) for name in ("reported", "probabilities"))
    return replace(parts[0], reported=reported, probabilities=chances)


def _predicted(output: Output, logits: Tensor) -> Prediction:
    chances = probabilities(output, logits) if output in ("classes", "labels") else logits.new_zeros(len(logits), 0)
    return Prediction(output=output, reported=predicted(output, logits), probabilities=chances, width=logits.shape[1])


def predict_proposals(model: Model, clean: Prediction, proposal: Proposal, *, rng: Generator) -> Prediction:
    """Return the judge's predictions of the proposals; rows that were not attacked keep their clean ones."""
    rows = proposal.attacked.nonzero().flatten()
    return clean.put(rows, predict(model, proposal.x_adv[rows], rng=rng)) if len(rows) else clean


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
    precision: Precision = "float32",
) -> Proposal:
    """Let the attack work on the rows that its goal applies to and that are not won yet; bring its proposals inside.

    Args:
        attack: sees the model under the threat's access only, every pass metered.
        already_won: bool[N], rows whose clean input reaches the goal already; they cost nothing.
        minimal: a least-perturbation attack: held to the domain's rules here, to each eps later.
        precision: what the attack searches in; its finds are judged in float32 (see `engine.fast`).

    Raises:
        ContractError: the attack returned another shape, type or device.
        Incompatible: the attack cannot run on this model or threat.
    """
    open_rows = ~already_won & threat.goal.applies(y)
    rows = open_rows.nonzero().flatten()
    clean = x[rows]
    meter = Meter(len(rows))
    cpu = time.process_time()
    seen = quick(model, clean, precision).limited(threat.access)
    found = attack(meter.watch(seen), clean, y[rows], threat, rng=rng) if len(rows) else clean
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
        attacked=open_rows,
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
    return torch.where(per_row(outside, clean), clean, found), outside


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

    A row whose clean input reaches the goal is won without any change; one that the goal does not apply to never is.
    A least-perturbation find beyond eps is not used: the clean row stands in its place, and its distance is kept.

    Args:
        found: the target's predictions of the proposals, where they are known already.
    """
    found = found or predict_proposals(target, clean, proposal, rng=rng)
    eligible = threat.goal.applies(y)
    wrong = reached(threat, clean, y)
    hit = reached(threat, found, y) & proposal.attacked
    scale = threat.budget.scaled(x)
    distances = sizes(proposal.x_adv, x, scale)
    usable = proposal.attacked
    if minimal:
        usable = usable & threat.budget.contains(proposal.x_adv, x)
        missed = (proposal.attacked & ~hit) | ~eligible
        distances = {norm: value.masked_fill(missed, float("inf")) for norm, value in distances.items()}
    distances = {norm: value.masked_fill(wrong, 0.0) for norm, value in distances.items()}
    return Verdict(
        prediction=found.where(usable & ~wrong, clean),
        won=wrong | (hit & usable),
        eligible=eligible,
        put_back=proposal.put_back,
        distances=distances,
    )


def reached(threat: Threat, prediction: Prediction, y: Tensor) -> Tensor:
    """Return bool[N]: the goal is reached by these predictions; goals are judged on the decision alone."""
    parts = [
        threat.goal.won(as_logits(prediction.output, reported, prediction.width), truth)
        for reported, truth in zip(prediction.reported.split(_JUDGED_ROWS), y.split(_JUDGED_ROWS), strict=True)
    ]
    return torch.cat(parts) & threat.goal.applies(y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """What `attack_rows` returns: clean predictions, the judged proposals, and the verdict."""

    clean: Prediction
    proposal: Proposal
    verdict: Verdict

    @property
    def robust_accuracy(self) -> float:
        """Share of rows that the attacker did not win: for any error, those right when clean that stay so."""
        return float((~self.verdict.won).float().mean())


def attack_rows(
    attack: Attack, model: Model, x: Tensor, y: Tensor, threat: Threat, *, minimal: bool = False, seed: int = 0
) -> Attacked:
    """Attack rows `x` [N, ...] with their `y`, in the form of the model's output, and judge as an assessment does.

    Attack and judge draw from different seeds. See `propose` for `minimal` and the errors.
    """
    clean = predict(model, x, rng=generator(seed, "clean"))
    won = reached(threat, clean, y)
    found = propose(attack, model, x, y, threat, won, minimal=minimal, rng=generator(seed, "attack"))
    judged = verdict(model, x, y, clean, found, threat, minimal=minimal, rng=generator(seed, "judge"))
    return Attacked(clean=clean, proposal=found, verdict=judged)
