"""Transfer between models of other sites, data sets and architectures: whose inputs fool whom.

Papernot, McDaniel, Goodfellow 2016, arXiv:1605.07277, section 3. Every model answers the same test rows. The attack
searches on beyond its first success, as `assess.transfer` does on surrogates. Beside each find stands the same change
without aim: what that fools too is frailty, no shared weakness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import pandas as pd
from torch import Tensor

from titer.assess.explained_rows import cell_of, unaimed
from titer.assess.judge import Proposal, predict, propose, reached
from titer.assess.members import Member, members, trained
from titer.assess.plan import AttackPlan
from titer.assess.study_parts import Found, Part, Study, studied_rows
from titer.assess.study_plans import TransferPlan
from titer.assess.transfer import rehearsed, searching
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.threat import Threat

_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """The models of one trial; each is trained when first asked for."""

    trial: Trial
    table: TransferPlan

    @cached_property
    def members(self) -> tuple[Member, ...]:
        return tuple(members(self.trial, self.table))

    @cached_property
    def models(self) -> dict[str, Model | Incompatible]:
        found: dict[str, Model | Incompatible] = {}
        for one in self.members:
            try:
                found[one.label] = trained(self.trial, self.table, one)
            except Incompatible as reason:
                found[one.label] = reason
        return found

    @property
    def attack(self) -> AttackPlan:
        attacks = self.trial.plan.attacks
        return next((one for one in attacks if one.label == self.table.attack), attacks[0])


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    table = trial.plan.between
    assert table is not None
    bench = _Bench(trial=trial, table=table)
    everyone = [{"spec": asdict(one.spec), "site": one.site, "other": one.other} for one in bench.members]
    for member in bench.members:
        if member.spec.label != source.model_label:
            continue
        for family in trial.plan.threats:
            threat = trial.threats(family)[-1]
            labels = {"found_on": member.label, "threat_family": threat.family, "threat": threat.name}
            spec = labels | {
                "version": _VERSION,
                "attack": bench.attack.spec,
                "attack_label": bench.attack.label,
                "rows": table.rows,
                "sites": table.sites,
                "members": everyone,
                "training": asdict(trial.plan.training),
                "cell": cell_of(trial, source, bench.attack, threat).id,
            }
            title = f"found on {member.label}, {bench.attack.label}, {threat.name}"
            yield Part(title=title, spec=spec, run=partial(_shown, bench, member, threat, labels))


STUDY = Study(name="transfer", table=lambda plan: plan.between, parts=_parts)


def _shown(bench: _Bench, member: Member, threat: Threat, labels: Mapping[str, str]) -> Found:
    """Attack one member and show its finds to every other; raise Incompatible where it cannot be made or attacked."""
    model = bench.models[member.label]
    if isinstance(model, Incompatible):
        raise model
    rows = studied_rows(bench.trial, bench.table.rows)
    found = _found(bench, member, model, threat, rows)
    frames = [
        _judged(bench, threat, rows, found.x_adv, one, labels, name)
        for name, one in bench.models.items()
        if isinstance(one, Model)
    ]
    refused = {name: str(one) for name, one in bench.models.items() if isinstance(one, Incompatible)}
    facts = {"attacked": int(found.attacked.sum()), "refused": refused}
    return Found(frame=pd.concat(frames, ignore_index=True), facts=facts)


def _found(bench: _Bench, member: Member, model: Model, threat: Threat, rows: Samples) -> Proposal:
    """Return the finds on one member; the search does not end at its first success."""
    attack, trial = searching(bench.attack), bench.trial
    names = ("transfer", member.label, threat.name)
    clean = predict(model, rows.x, rng=generator(trial.seed, *names, "clean"))
    return propose(
        make_attack(attack.spec),
        model,
        rows.x,
        rows.y,
        rehearsed(attack, threat),
        reached(threat, clean, rows.y),
        minimal=attack.minimal,
        rng=generator(trial.seed, *names, "attack"),
        precision=trial.plan.precision,
    )


def _judged(
    bench: _Bench, threat: Threat, rows: Samples, x_adv: Tensor, model: Model, labels: Mapping[str, str], name: str
) -> pd.DataFrame:
    """Return one row a sample: whether the target was right, and wrong by the find and by the same change unaimed."""
    seed, names = bench.trial.seed, ("transfer", labels["found_on"], name, threat.name)
    noisy = unaimed(x_adv, rows.x, threat, rng=generator(seed, *names[:2], threat.name, "noise"))
    clean, moved, noise = (
        reached(threat, predict(model, x, rng=generator(seed, *names, what)), rows.y)
        for what, x in (("clean", rows.x), ("find", x_adv), ("noise judged", noisy))
    )
    at_stake = threat.goal.applies(rows.y) & ~clean
    return pd.DataFrame(
        {
            **{key: [value] * len(rows) for key, value in labels.items()},
            "shown_to": [name] * len(rows),
            "sample_id": list(rows.ids),
            "patient_id": list(rows.patients),
            "at_stake": at_stake.cpu().numpy(),
            "won": (at_stake & moved).cpu().numpy(),
            "noise_won": (at_stake & noise).cpu().numpy(),
        }
    )
