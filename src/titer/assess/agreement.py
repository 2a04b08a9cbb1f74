"""Attacks held against each other: what must not happen if all of them work (Carlini et al. 2019, arXiv:1902.06705).

A check that fails says that the headline, the worst case over all attacks, is too kind. An alarm says that one attack
is weaker than another one proves possible: the headline stands, since it counts the other one too, but that attack's
own numbers do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from titer.core.threat import Access

CONSEQUENCE = "robustness overestimated"
WEAK = "this attack's own numbers overestimate the robustness"
ACCIDENTS = "this attack's successes may count accidents, and understate the robustness"
PASS, FAIL, ALARM, NOT_APPLICABLE = "pass", "fail", "alarm", "not applicable"
_TOLERANCE, _LOOSE = 0.01, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of an attack: how it searches, what it sees, and its rank among attacks of its kind.

    `effort` counts gradient steps with restarts; an ensemble counts as more than any single attack.
    """

    single_step: bool = False
    minimal: bool = False
    joint: bool = False
    access: Access = "gradient"
    effort: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's value beside its limit, whether it fails, and what to tell in either case."""

    value: float
    limit: float
    fails: bool
    doubt: str
    comfort: str


def result(finding: Finding, failed: str = FAIL) -> dict[str, Any]:
    """Return a finding as a record of sanity.json."""
    return {
        "result": failed if finding.fails else PASS,
        "value": finding.value,
        "limit": finding.limit,
        "message": finding.doubt if finding.fails else finding.comfort,
    }


def not_applicable(reason: str) -> dict[str, Any]:
    """Return the record of a check that has nothing to look at."""
    return {"result": NOT_APPLICABLE, "value": None, "limit": None, "message": reason}


def compare_outcomes(outcomes: pd.DataFrame, kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """Check the outcomes of every defended model and family of threats against each other.

    Args:
        outcomes: the outcomes table.
        kinds: what is known of each attack, by its label.
    """
    attacked = outcomes[outcomes["attack"] != "none"]
    checks: list[dict[str, Any]] = []
    for (model, defense, family), rows in attacked.groupby(["model", "defense", "threat_family"], sort=False):
        labels = {"model": model, "defense": defense, "threat_family": family}
        own = rows[rows["source"] == defense]
        if own.empty:
            continue
        borrowed = rows[rows["source"] != defense]
        checks += [labels | check for check in _checks(own, borrowed, kinds, undefended=defense == "none")]
    return checks


def _checks(
    own: pd.DataFrame, borrowed: pd.DataFrame, kinds: Mapping[str, Kind], *, undefended: bool
) -> Iterator[dict[str, Any]]:
    won = own.groupby(["attack", "threat"], sort=False)["won"].mean().unstack("attack").astype(float)  # noqa: PD010
    fixed = [a for a in won if not _kind(kinds, a).minimal and not _kind(kinds, a).joint]
    white = [a for a in fixed if _kind(kinds, a).access == "gradient"]
    yield _many_against_single(won, white, kinds)
    yield _white_against_black(won, kinds)
    if not undefended or not borrowed.empty:
        yield _adaptive_against_transfer(own, borrowed)
    yield from _longer_against_shorter(won, white, kinds)
    for attack in won:
        if _kind(kinds, attack).minimal and _kind(kinds, attack).access == "gradient":
            yield _minimal_against_fixed(won, str(attack), white)


def _kind(kinds: Mapping[str, Kind], attack: Any) -> Kind:
    return kinds.get(str(attack), Kind())


def _gap(won: pd.DataFrame, better: Sequence[Any], worse: Sequence[Any]) -> float:
    """Return by how much `worse` beats `better` at its widest: where both sides have outcomes."""
    difference = won[list(worse)].max(axis=1) - won[list(better)].max(axis=1)
    return float(difference.max())


def _many_against_single(won: pd.DataFrame, white: Sequence[Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    name = {"check": "iterative-no-worse-than-single-step", "consequence": CONSEQUENCE}
    single = [a for a in white if _kind(kinds, a).single_step]
    many = [a for a in white if not _kind(kinds, a).single_step]
    if not single or not many:
        return name | not_applicable("the plan has no pair of a single-step and an iterative attack")
    gap = _gap(won, many, single)
    doubt = f"a single step fools up to {gap:.1%} more of the patients than many steps: the iterative attack is broken"
    comfort = f"many steps fool at least as many patients as a single one (difference {-gap:+.1%})"
    return name | result(Finding(value=gap, limit=_TOLERANCE, fails=gap > _TOLERANCE, doubt=doubt, comfort=comfort))


def _white_against_black(won: pd.DataFrame, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    name = {"check": "white-box-no-worse-than-black-box", "consequence": CONSEQUENCE}
    white = [a for a in won if _kind(kinds, a).access == "gradient"]
    black = [a for a in won if _kind(kinds, a).access != "gradient"]
    if not white or not black:
        return name | not_applicable("the plan has no pair of an attack with gradients and one without")
    gap = _gap(won, white, black)
    doubt = (
        f"attacks that see no gradient fool up to {gap:.1%} more of the patients than those that do: the gradients "
        "lead astray, and what they do not find is no robustness"
    )
    comfort = f"attacks with gradients fool at least as many patients as those without (difference {-gap:+.1%})"
    return name | result(Finding(value=gap, limit=_TOLERANCE, fails=gap > _TOLERANCE, doubt=doubt, comfort=comfort))


def _adaptive_against_transfer(own: pd.DataFrame, transfer: pd.DataFrame) -> dict[str, Any]:
    name = {"check": "white-box-no-worse-than-transfer", "consequence": CONSEQUENCE}
    if transfer.empty:
        return name | not_applicable("no inputs found on another model were shown to this one")
    keys = ["threat", "trial", "sample_id"]
    adaptive, passive = (
        rows.groupby(keys, sort=False)["won"].any().groupby("threat").mean().astype(float) for rows in (own, transfer)
    )
    gap = float(passive.sub(adaptive).max())
    doubt = (
        f"inputs found on another model fool up to {gap:.1%} more of the patients than attacks that know the "
        "defence: those attacks miss what is there"
    )
    comfort = f"attacks that know the defence fool no fewer patients than borrowed inputs (difference {-gap:+.1%})"
    return name | result(Finding(value=gap, limit=_TOLERANCE, fails=gap > _TOLERANCE, doubt=doubt, comfort=comfort))


def _longer_against_shorter(
    won: pd.DataFrame, white: Sequence[Any], kinds: Mapping[str, Kind]
) -> Iterator[dict[str, Any]]:
    """Attacks of one family in the order of their effort: each at least as strong as any with half of it or less."""
    for attack in white:
        effort = _kind(kinds, attack).effort
        lesser = [a for a in white if a != attack and 2 * _kind(kinds, a).effort <= effort]
        if not lesser:
            continue
        gap = _gap(won, [attack], lesser)
        name = {"check": "more-effort-no-worse", "attack": str(attack), "consequence": WEAK}
        others = ", ".join(map(str, lesser))
        doubt = f"{attack} fools up to {gap:.1%} fewer of the patients than attacks of half its effort ({others})"
        comfort = f"{attack} fools at least as many patients as attacks of half its effort (difference {-gap:+.1%})"
        found = Finding(value=gap, limit=2 * _TOLERANCE, fails=gap > 2 * _TOLERANCE, doubt=doubt, comfort=comfort)
        yield name | result(found, ALARM)


def _minimal_against_fixed(won: pd.DataFrame, attack: str, white: Sequence[Any]) -> dict[str, Any]:
    name = {"check": "least-perturbation-no-worse-than-fixed-budget", "attack": attack, "consequence": WEAK}
    if not white:
        return name | not_applicable("the plan has no attack on a fixed budget")
    gap = _gap(won, [attack], white)
    doubt = (
        f"an attack on a fixed budget fools up to {gap:.1%} more of the patients than {attack} finds within that "
        "budget: its distances are too large, and its curve too kind"
    )
    comfort = f"{attack} finds what attacks on a fixed budget find (difference {-gap:+.1%})"
    found = Finding(value=gap, limit=_LOOSE, fails=gap > _LOOSE, doubt=doubt, comfort=comfort)
    return name | result(found, ALARM)


def confirmed(attack: str, wins: int, unconfirmed: int, *, randomised: bool) -> dict[str, Any]:
    """Return the check that a second prediction confirms an attack's successes.

    Args:
        attack: its label.
        wins: rows judged as won, that were not so before any change.
        unconfirmed: those of them that a second look, in another batch or at another draw, does not confirm.
        randomised: whether the model declares randomness: then some must differ.
    """
    name = {"check": "successes-confirmed", "attack": attack, "consequence": ACCIDENTS}
    if not wins:
        return name | not_applicable("there is no success to confirm")
    share = unconfirmed / wins
    limit = _LOOSE if randomised else 0.0
    doubt = f"a second prediction does not confirm {share:.1%} of the successes of {attack}"
    comfort = f"a second prediction confirms the successes of {attack} ({share:.1%} differ)"
    return name | result(Finding(value=share, limit=limit, fails=share > limit, doubt=doubt, comfort=comfort), ALARM)
