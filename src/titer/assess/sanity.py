"""Doubts: the checks a reviewer makes before believing a good number (Carlini et al. 2019, arXiv:1902.06705).

Probes need the model and run once for each defended model and family, in trial 0; the other checks read the outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.randomness import generator
from titer.core.threat import Threat
from titer.threats.goals import HighestLoss, log_odds_of_error
from titer.threats.rules import MutableMask

ROWS = 128
_STEPS: dict[str, Any] = {"name": "pgd", "steps": 40, "step": 0.1, "restarts": 1}
_CLIMB = {"name": "pgd", "steps": 10, "step": 0.1, "random_start": False}
_GROWTH = 2.0
_CROSSING = 2.0
_DOUBLINGS = 12
CONSEQUENCE = "robustness overestimated"
PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a probe looks at: a model, rows it gets right, a family's largest threat, and the plan's longest search."""

    model: Model
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int
    usual: Mapping[str, Any] = field(default_factory=lambda: dict(_STEPS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's value beside its limit, whether it fails, and what to tell in either case."""

    value: float
    limit: float
    fails: bool
    doubt: str
    comfort: str


def gradients_not_zero(subject: Subject) -> Finding:
    """Share of patients whose cross-entropy gradient is exactly zero or not finite."""

    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, subject.y, reduction="none")

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
    threat = replace(subject.threat, goal=HighestLoss())
    x_adv = _attack(_CLIMB, subject, threat)
    rng = generator(subject.seed, "loss")
    before, after = (_log_odds(subject, x, rng) for x in (subject.x, x_adv))
    share = float((after > before).float().mean())
    doubt = f"ten steps of the attack raise the loss for only {share:.0%} of the patients: its steps lead nowhere"
    comfort = f"ten steps of the attack raise the loss for {share:.0%} of the patients"
    return Finding(value=share, limit=0.9, fails=share < 0.9, doubt=doubt, comfort=comfort)


def unbounded_attack_succeeds(subject: Subject) -> Finding:
    """Success as eps grows until it is 100 %, or the budget is as large as anything can be."""
    if any(isinstance(rule, MutableMask) for rule in subject.threat.domain):
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
    share = 0.0 if subject.model.draw is not None else float((first != second).any(1).float().mean())
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
    searches = [dict(spec) for spec in specs if spec.get("steps", 1) > 1]
    return max(searches, key=lambda spec: spec["steps"] * spec.get("restarts", 1), default=dict(_STEPS))


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

    `usual` is the plan's longest search, which a longer one is held against.
    """
    with torch.no_grad():
        logits = model.logits if model.draw is None else model.draw(generator(seed, "probe"))
        right = (torch.cat([logits(part) for part in x.split(500)]).argmax(1) == y).nonzero().flatten()[:ROWS]
    subject = Subject(model=model.limited(threat.access), x=x[right], y=y[right], threat=threat, seed=seed)
    subject = subject if usual is None else replace(subject, usual=usual)
    return [_record(name, check, subject) for name, check in PROBES.items()]


def _record(name: str, check: Callable[[Subject], Finding], subject: Subject) -> dict[str, Any]:
    common = {"check": name, "threat_family": subject.threat.family, "consequence": CONSEQUENCE}
    if not len(subject.y):
        return common | _not_applicable("the model gets no test row right")
    try:
        finding = check(subject)
    except Incompatible as reason:
        return common | _not_applicable(str(reason))
    return common | _result(finding)


def _result(finding: Finding) -> dict[str, Any]:
    return {
        "result": FAIL if finding.fails else PASS,
        "value": finding.value,
        "limit": finding.limit,
        "message": finding.doubt if finding.fails else finding.comfort,
    }


def _not_applicable(reason: str) -> dict[str, Any]:
    return {"result": NOT_APPLICABLE, "value": None, "limit": None, "message": reason}


def _attack(spec: Mapping[str, Any], subject: Subject, threat: Threat) -> Tensor:
    rng = generator(subject.seed, str(spec), threat.name)
    return threat.project(make_attack(spec)(subject.model, subject.x, subject.y, threat, rng=rng), subject.x)


def _log_odds(subject: Subject, x: Tensor, rng: torch.Generator) -> Tensor:
    with torch.no_grad():
        logits = subject.model.logits if subject.model.draw is None else subject.model.draw(rng)
        return log_odds_of_error(logits(x), subject.y)


def _won(subject: Subject, x_adv: Tensor) -> Tensor:
    rng = generator(subject.seed, "won")
    with torch.no_grad():
        logits = subject.model.logits if subject.model.draw is None else subject.model.draw(rng)
        won = subject.threat.goal.won(logits(x_adv), subject.y)
    return won & subject.threat.contains(x_adv, subject.x)


_TOLERANCE = 0.01


def compare_outcomes(
    outcomes: pd.DataFrame, single_step: frozenset[str], iterative: frozenset[str]
) -> list[dict[str, Any]]:
    """Check the outcomes against each other: iterative no worse than single-step, adaptive no worse than transfer.

    Args:
        outcomes: the outcomes table.
        single_step: labels of attacks with one step.
        iterative: labels of attacks with many steps that are held to the same budget.
    """
    attacked = outcomes[outcomes["attack"] != "none"]
    checks: list[dict[str, Any]] = []
    for (model, defense, family), rows in attacked.groupby(["model", "defense", "threat_family"], sort=False):
        labels = {"model": model, "defense": defense, "threat_family": family, "consequence": CONSEQUENCE}
        own = rows[rows["source"] == defense]
        if own.empty:
            continue
        checks.append(labels | _iterative_against_single(own, single_step, iterative))
        if defense != "none":
            checks.append(labels | _adaptive_against_transfer(own, rows[rows["source"] != defense]))
    return checks


def _iterative_against_single(
    own: pd.DataFrame, single_step: frozenset[str], iterative: frozenset[str]
) -> dict[str, Any]:
    name = {"check": "iterative-no-worse-than-single-step"}
    won = own.groupby(["attack", "threat"], sort=False)["won"].mean().unstack("attack")  # noqa: PD010
    single = [label for label in won if label in single_step]
    many = [label for label in won if label in iterative]
    if not single or not many:
        return name | _not_applicable("the plan has no pair of a single-step and an iterative attack")
    gap = float((won[single].max(axis=1) - won[many].max(axis=1)).max())
    doubt = f"a single step fools up to {gap:.1%} more of the patients than many steps: the iterative attack is broken"
    comfort = f"many steps fool at least as many patients as a single one (difference {-gap:+.1%})"
    return name | _result(Finding(value=gap, limit=_TOLERANCE, fails=gap > _TOLERANCE, doubt=doubt, comfort=comfort))


def _adaptive_against_transfer(own: pd.DataFrame, transfer: pd.DataFrame) -> dict[str, Any]:
    name = {"check": "white-box-no-worse-than-transfer"}
    if transfer.empty:
        return name | _not_applicable("no inputs found on the undefended model were shown to this one")
    keys = ["threat", "trial", "sample_id"]
    adaptive, passive = (
        rows.groupby(keys, sort=False)["won"].any().groupby("threat").mean().astype(float) for rows in (own, transfer)
    )
    gap = float(passive.sub(adaptive).max())
    doubt = (
        f"inputs found on the undefended model fool up to {gap:.1%} more of the patients than attacks that know the "
        "defence: those attacks miss what is there"
    )
    comfort = f"attacks that know the defence fool no fewer patients than borrowed inputs (difference {-gap:+.1%})"
    return name | _result(Finding(value=gap, limit=_TOLERANCE, fails=gap > _TOLERANCE, doubt=doubt, comfort=comfort))
