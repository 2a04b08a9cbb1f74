"""Certificates of a plan: what is proven of each row, beside what attacks found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from titer.assess.judge import Prediction, reached
from titer.assess.study_parts import Found, Part, Study, studied_rows
from titer.assess.study_plans import labels, unlabelled
from titer.assess.trial import Defended, Trial
from titer.core.errors import ContractError, Incompatible
from titer.core.model import Model
from titer.core.needs import NORMS
from titer.core.plugins import make_certifier, plugin
from titer.core.protocols import Certificates
from titer.core.randomness import generator
from titer.core.record import Samples
from titer.core.registry import Spec
from titer.core.threat import Threat
from titer.engine.smoothing import Smoothed

About = Literal["model", "smoothed", "another"]
"""What a certificate is of: the model that is attacked, that model's answer over many draws, or another one."""

_ABSTAINED = -1


@dataclass(frozen=True, slots=True)
class _Certifier:
    """One certifier of the plan: its label, its settings filled in, and the norms in which it proves a radius."""

    label: str
    title: str
    settings: dict[str, Any]
    norms: tuple[str, ...]


def _certifiers(specs: tuple[Spec, ...]) -> Iterator[_Certifier]:
    for label, spec in zip(labels(specs), specs, strict=True):
        bare = unlabelled(spec)
        found = plugin("certifiers", bare)
        given = {} if isinstance(bare, str) else {key: value for key, value in bare.items() if key != "name"}
        norms = tuple(norm for norm in NORMS if norm in found.traits)
        yield _Certifier(label, found.title, {"name": found.name, **found.check(given, label)}, norms)


def _parts(trial: Trial, source: Defended) -> Iterator[Part]:
    """Yield one part for each certifier and family of threats, at the family's largest budget."""
    table = trial.plan.certification
    assert table is not None
    rows = studied_rows(trial, table.rows)
    for certifier in _certifiers(table.certifiers):
        for family in trial.plan.threats:
            threat = trial.threats(family)[-1]
            yield Part(
                title=f"{certifier.label}, {threat.name}",
                spec={
                    "certifier": certifier.label,
                    "settings": certifier.settings,
                    "threat_family": threat.family,
                    "threat": threat.name,
                    "norm": threat.budget.norm,
                    "goal": threat.goal.name,
                    "rules": [rule.describe() for rule in threat.domain],
                    "rows": len(rows),
                },
                run=partial(_certify, trial, source, certifier, threat, rows),
            )


def _certify(trial: Trial, source: Defended, certifier: _Certifier, threat: Threat, rows: Samples) -> Found:
    """Certify the rows under one threat.

    Raises:
        Incompatible: the certifier cannot bound this model, or proves nothing in the threat's norm.
        ContractError: what came back has another form than certificates have.
    """
    model = source.model
    assert model is not None
    _refuse(certifier, model, threat)
    run = make_certifier(certifier.settings)
    rng = generator(trial.seed, "certify", source.model_label, source.label, certifier.label, threat.name)
    began = time.process_time()
    found = run(model, rows.x, threat, rng=rng)
    spent = time.process_time() - began
    _check(found, rows, certifier.label)
    facts = {
        "certifier": certifier.label,
        "title": certifier.title,
        "threat_family": threat.family,
        "norm": threat.budget.norm,
        "unit": threat.budget.unit,
        "eps": float(threat.budget.eps),
        "about": about(model, found, certifier.settings),
        "confidence": found.confidence,
        "rows": len(rows),
        "cpu_seconds_per_row": spent / len(rows),
        "samples_per_row": _samples(certifier.settings),
    }
    return Found(frame=_frame(found, certifier.label, threat, rows, len(trial.data.classes)), facts=facts)


def _refuse(certifier: _Certifier, model: Model, threat: Threat) -> None:
    norm = threat.budget.norm
    if norm not in certifier.norms:
        known = ", ".join(certifier.norms) or "no norm"
        raise Incompatible(f"it proves radii in {known}, and {threat.family} is measured in {norm}")
    if model.output != "classes":
        raise Incompatible(f"certificates are of classes, and {model.name} returns {model.output}")


def about(model: Model, found: Certificates, settings: dict[str, Any]) -> About:
    """Return what certificates are of.

    A proof is of the model itself. What rests on draws is of the class that noise gives most often: where the model is
    smoothed with that very noise, that is what its own few draws come near to; else nobody runs what is certified.
    """
    if found.confidence == 1:
        return "model"
    return "smoothed" if isinstance(model.draw, Smoothed) and settings.get("sigma") is None else "another"


def _samples(settings: dict[str, Any]) -> int | None:
    """Return how many noisy copies of a row the model is asked about; None where a certifier counts none."""
    counts = [settings[name] for name in ("selection", "draws") if name in settings]
    return sum(counts) if counts else None


def _check(found: Certificates, rows: Samples, label: str) -> None:
    """Raise ContractError unless there is one class, or none, and one radius for each row."""
    shape = (len(rows),)
    right = found.prediction.shape == found.radius.shape == shape and found.prediction.dtype == torch.int64
    if not right or not bool((found.radius >= 0).all()) or not 0 < found.confidence <= 1:
        raise ContractError(
            f"the certifier {label!r} returned predictions {tuple(found.prediction.shape)}, radii "
            f"{tuple(found.radius.shape)}, confidence {found.confidence}: allowed are int64 and float of {shape}, no "
            "radius below 0, and a confidence above 0 up to 1"
        )


def _frame(found: Certificates, label: str, threat: Threat, rows: Samples, classes: int) -> pd.DataFrame:
    """Return one row a sample; `holds` where the proven answer is not what the attacker wants."""
    y = rows.y
    given = found.prediction != _ABSTAINED
    answer = found.prediction.clamp_min(0)
    nothing = torch.zeros(len(rows), 0, device=answer.device)
    told = Prediction(output="classes", reported=answer, probabilities=nothing, width=classes)
    eligible = threat.goal.applies(y)
    return pd.DataFrame(
        {
            "sample_id": list(rows.ids),
            "patient_id": list(rows.patients),
            "label": _array(y),
            "certifier": label,
            "threat_family": threat.family,
            "norm": threat.budget.norm,
            "unit": threat.budget.unit,
            "eps": float(threat.budget.eps),
            "goal": threat.goal.name,
            "eligible": _array(eligible),
            "prediction": _array(found.prediction),
            "holds": _array(given & eligible & ~reached(threat, told, y)),
            "radius": _array(found.radius.float()),
            "confidence": found.confidence,
        }
    )


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy()


STUDY = Study(name="certification", table=lambda plan: plan.certification, parts=_parts)
