"""Doubts: the checks a reviewer makes before believing a good number (Carlini et al. 2019, arXiv:1902.06705).

Probes need the model and run once for each defended model and family, in trial 0; the other checks read the outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from titer.assess.agreement import CONSEQUENCE, Finding, not_applicable, result
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.randomness import generator
from titer.core.threat import Threat
from titer.threats.naming import highest_loss
from titer.threats.rules import MutableMask, RowMask
from titer.training.objectives import row_loss

ROWS = 128
RANDOM_ROWS = 64
ENSEMBLES = ("autoattack", "worst-case")
_STEPS: dict[str, Any] = {"name": "pgd", "steps": 40, "step": 0.1, "restarts": 1}
_CLIMB = {"name": "pgd", "steps": 10, "step": 0.1, "random_start": False}
_GROWTH = 2.0
_CROSSING = 2.0
_DOUBLINGS = 12
_BLIND = (
    "the model reads none of the values that may change: exchanged between patients, they leave every score as it is"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a probe looks at: a model, rows it gets right, a family's largest threat, and the plan's longest search."""

    model: Model
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int
    usual: Mapping[str, Any] = field(default_factory=lambda: dict(_STEPS))


def gradients_not_zero(subject: Subject) -> Finding:
    """Share of patients whose cross-entropy gradient is exactly zero or not finite."""

    def loss(logits: Tensor) -> Tensor:
        return row_loss(subject.model.output, logits, subject.y)

    rng = generator(subject.seed, "gradients")
    grad = subject.model.grad(loss, subject.x, draws=4, rng=rng).flatten(1)
    lost = (grad == 0).all(1) | ~grad.isfinite().all(1)
    share = float(lost.float().mean())
    doubt = (
        f"the loss gradient vanishes for {share:.0%} of the patients: attacks that follow it are blind, and a "
        "robustness measured with them says nothing"
    )
    comfort = f"the loss gradient is alive for {1 - share:.0%} of the patients"
    return Finding(value=share, limit=0.1, fails=share > 0.1, doubt=doubt, comfort=comfort)


def loss_rises(subject: Subject) -> Finding:
    """Share of patients whose loss is higher after ten steps of the attack than before."""
    threat = replace(subject.threat, goal=highest_loss(subject.model.output))
    x_adv = _attack(_CLIMB, subject, threat)
    rng = generator(subject.seed, "loss")
    before, after = (_losses(subject, threat, x, rng) for x in (subject.x, x_adv))
    share = float((after > before).float().mean())
    doubt = f"ten steps of the attack raise the loss for only {share:.0%} of the patients: its steps lead nowhere"
    comfort = f"ten steps of the attack raise the loss for {share:.0%} of the patients"
    return Finding(value=share, limit=0.9, fails=share < 0.9, doubt=doubt, comfort=comfort)


def unbounded_attack_succeeds(subject: Subject) -> Finding:
    """Success as eps grows until it is 100 %, or the budget is as large as anything can be."""
    if any(isinstance(rule, MutableMask | RowMask) for rule in subject.threat.domain):
        raise Incompatible("only a part of the input may change, so that no budget need fool every patient")
    threat, open_rows = subject.threat, torch.ones(len(subject.y), dtype=torch.bool, device=subject.y.device)
    for _ in range(_DOUBLINGS):
        threat = threat.at(threat.budget.eps * _GROWTH)
        part = replace(subject, x=subject.x[open_rows], y=subject.y[open_rows], threat=threat)
        won = _won(part, _attack(_STEPS, part, threat))
        open_rows[open_rows.nonzero().flatten()[won]] = False
        if not bool(open_rows.any()):
            break
    share = 1.0 - float(open_rows.float().mean())
    doubt = (
        f"with a budget of {threat.name} the attack still fools only {share:.1%} of the patients, where any model "
        "without hidden gradients falls entirely"
    )
    comfort = f"with a budget of {threat.name} the attack fools {share:.1%} of the patients, as it must"
    return Finding(value=share, limit=0.99, fails=share < 0.99, doubt=doubt, comfort=comfort)


def more_steps_no_worse(subject: Subject) -> Finding:
    """Points of success that four times the steps and a second start add."""
    usual = _won(subject, _attack(subject.usual, subject, subject.threat))
    more = _won(subject, _attack(_longer(subject.usual), subject, subject.threat))
    gain = float(more.float().mean()) - float(usual.float().mean())
    doubt = f"a longer search fools {gain:.1%} more of the patients: the attack had not converged"
    comfort = f"four times the steps and a second start change the success by {gain:+.1%}"
    return Finding(value=gain, limit=0.03, fails=gain > 0.03, doubt=doubt, comfort=comfort)


def no_hidden_randomness(subject: Subject) -> Finding:
    """Share of patients whose scores differ between two looks although the model declares no randomness."""
    with torch.no_grad():
        first, second = (subject.model.logits(subject.x) for _ in range(2))
    share = 0.0 if subject.model.draw is not None else float((first != second).flatten(1).any(1).float().mean())
    doubt = (
        f"the scores of {share:.0%} of the patients differ from one look to the next, and the defence declares no "
        "randomness: attacks could not average over it (EOT)"
    )
    comfort = "two looks at the same input give the same scores, or the randomness is declared and averaged over"
    return Finding(value=share, limit=0.0, fails=share > 0.0, doubt=doubt, comfort=comfort)


PROBES: dict[str, Callable[[Subject], Finding]] = {
    "gradients-not-zero": gradients_not_zero,
    "loss-rises-along-the-attack": loss_rises,
    "success-reaches-100-percent-as-eps-grows": unbounded_attack_succeeds,
    "more-steps-no-worse": more_steps_no_worse,
    "randomness-declared": no_hidden_randomness,
}


def longest_search(specs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the spec with the most steps, restarts counted; 40 steps of pgd where no attack has steps."""
    searches = [_search_of(spec) for spec in specs if spec.get("steps", 1) > 1]
    return max(searches, key=_effort, default=dict(_STEPS))


def _effort(spec: Mapping[str, Any]) -> tuple[int, bool]:
    """Return what searches are ranked by: steps of all starts, and of equal ones auto-PGD first."""
    return spec["steps"] * spec.get("restarts", 1), spec["name"] == "apgd"


def _search_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the search that an attack rests on: of an ensemble, its auto-PGD, which outdoes any other of its steps."""
    if spec["name"] in ENSEMBLES:
        return {"name": "apgd", "steps": spec["steps"]}
    return dict(spec)


def _longer(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search of four times the steps, each half as long, and one start more where it has random ones.

    Its steps can cross the ball at least once: a search of tiny steps is not excused by one of tinier ones.
    """
    steps = 4 * spec["steps"]
    longer = {**spec, "steps": steps}
    longer |= {"step": max(spec["step"] / 2, _CROSSING / steps)} if "step" in spec else {}
    return longer | ({"restarts": spec["restarts"] + 1} if "restarts" in spec else {})


def probe(
    model: Model, x: Tensor, y: Tensor, threat: Threat, *, seed: int, usual: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run every probe on the rows that the model gets right; x is [N, ...], at most `ROWS` are used.

    Of a randomised model at most `RANDOM_ROWS`, as each gradient is a mean over many draws. `usual` is the plan's
    longest search, which a longer one is held against.
    """
    try:
        right = _right(model, x, y, threat, generator(seed, "probe"))
    except Incompatible as reason:
        return [_common(name, threat) | not_applicable(str(reason)) for name in PROBES]
    subject = Subject(model=model.limited(threat.access), x=x[right], y=y[right], threat=threat, seed=seed)
    subject = subject if usual is None else replace(subject, usual=usual)
    if _unread(subject):
        return [_common(name, threat) | not_applicable(_BLIND) for name in PROBES]
    return [_record(name, check, subject) for name, check in PROBES.items()]


def _unread(subject: Subject) -> bool:
    """Return whether the model is blind to what may change, as one is to the other modalities of a patient.

    No gradient says so, as a hidden one is 0 too: other patients' values in their place do.
    """
    masks = [rule.mask for rule in subject.threat.domain if isinstance(rule, MutableMask)]
    if not masks or subject.model.draw is not None or subject.model.access == "decision" or len(subject.y) < 2:
        return False
    others = subject.x.roll(1, dims=0)
    for mask in masks:
        others = torch.where(mask.to(subject.x.device), others, subject.x)
    with torch.no_grad():
        return torch.equal(subject.model.logits(others), subject.model.logits(subject.x))


def _right(model: Model, x: Tensor, y: Tensor, threat: Threat, rng: torch.Generator) -> Tensor:
    """Return the numbers of the first rows that the goal applies to and that the model gets right, int64[n].

    Of a value or a mask, those that the goal is not reached for: neither is ever exactly right.
    """
    with torch.no_grad():
        logits = model.logits if model.draw is None else model.draw(rng)
        parts = [logits(part) for part in x.split(500)]
    truths = y.split(500)
    if model.output == "classes":
        right = [part.argmax(1) == truth for part, truth in zip(parts, truths, strict=True)]
    else:
        right = [~threat.goal.won(part, truth) for part, truth in zip(parts, truths, strict=True)]
    most = ROWS if model.draw is None else RANDOM_ROWS
    return (torch.cat(right) & threat.goal.applies(y)).nonzero().flatten()[:most]


def _common(name: str, threat: Threat) -> dict[str, Any]:
    return {"check": name, "threat_family": threat.family, "consequence": CONSEQUENCE}


def _record(name: str, check: Callable[[Subject], Finding], subject: Subject) -> dict[str, Any]:
    common = _common(name, subject.threat)
    if not len(subject.y):
        return common | not_applicable("the model gets no test row right")
    try:
        finding = check(subject)
    except Incompatible as reason:
        return common | not_applicable(str(reason))
    return common | result(finding)


def _attack(spec: Mapping[str, Any], subject: Subject, threat: Threat) -> Tensor:
    rng = generator(subject.seed, str(spec), threat.name)
    return threat.project(make_attack(spec)(subject.model, subject.x, subject.y, threat, rng=rng), subject.x)


def _losses(subject: Subject, threat: Threat, x: Tensor, rng: torch.Generator) -> Tensor:
    with torch.no_grad():
        logits = subject.model.logits if subject.model.draw is None else subject.model.draw(rng)
        return threat.goal.loss(logits(x), subject.y)


def _won(subject: Subject, x_adv: Tensor) -> Tensor:
    rng = generator(subject.seed, "won")
    with torch.no_grad():
        logits = subject.model.logits if subject.model.draw is None else subject.model.draw(rng)
        won = subject.threat.goal.won(logits(x_adv), subject.y)
    return won & subject.threat.contains(x_adv, subject.x)
