"""Runs one cell: propose, judge on every target, and keep rows, examples and costs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from titer.assess.attempts import attempts
from titer.assess.cells import FORMAT_VERSION, Cell, CellStore
from titer.assess.judge import (
    Prediction,
    Proposal,
    Verdict,
    predict,
    predict_proposals,
    verdict,
)
from titer.assess.second_look import SecondLook
from titer.assess.trial import Defended, Trial
from titer.assess.views import View, as_columns
from titer.core.errors import Incompatible
from titer.core.needs import NORMS
from titer.core.outputs import wrong
from titer.core.randomness import derive, generator
from titer.core.record import ClinicalData, Samples
from titer.core.threat import Threat

_EXAMPLES = 4


class Runner:
    """Runs the cells of one source; clean predictions are made once."""

    def __init__(self, trial: Trial, store: CellStore) -> None:
        self.trial = trial
        self.store = store
        self._test = trial.split.test.to(trial.device)
        self._clean: dict[tuple[str, str], Prediction] = {}

    def run(self, cell: Cell) -> None:
        """Run one cell and keep it; an incompatible one is kept with its reason."""
        began = time.process_time()
        note = self._note(cell)
        try:
            _refuse_missing(cell.source)
            if cell.attack is None:
                frame, examples = self._clean_rows(cell), None
                note["inference_cpu_seconds"] = self._inference_cost(cell.source)
            else:
                frame, examples = self._attacked_rows(cell, note)
        except Incompatible as reason:
            self.store.save(cell.id, note | {"skipped": str(reason)})
            return
        note |= {"cpu_seconds": time.process_time() - began, "rows": len(self._test)}
        self.store.save(cell.id, note, frame, examples)

    def clean(self, one: Defended) -> Prediction:
        """Return the judge's clean predictions of one model."""
        key = (one.model_label, one.label)
        if key not in self._clean:
            assert one.model is not None
            rng = generator(self.trial.seed, "judge", one.model_label, one.label, "clean")
            self._clean[key] = predict(one.model, self._test.x, rng=rng)
        return self._clean[key]

    def _note(self, cell: Cell) -> dict[str, Any]:
        costs = [] if cell.source.model is None else json.loads(cell.source.model.provenance.get("costs", "[]"))
        weights = "" if cell.source.model is None else cell.source.model.provenance.get("weights", "")
        return {
            "format_version": FORMAT_VERSION,
            "trial": self.trial.number,
            "model": cell.source.model_label,
            "source": cell.source.label,
            "attack": "none" if cell.attack is None else cell.attack.label,
            "threat": ", ".join(threat.name for threat in cell.threats) or "none",
            "training": costs,
            "weights": weights,
        }

    def _attacked_rows(self, cell: Cell, note: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, np.ndarray] | None]:
        assert cell.attack is not None
        proposals = attempts(self.trial, cell.rehearsal(), self._test, self.clean(cell.source))
        note["attack_cpu_seconds"] = sum({id(one): one.attack_cpu_seconds for one in proposals}.values())
        note["certified"] = sum(int(one.certified.sum()) for one in proposals if one.certified is not None)
        frames, examples, looks = [], None, SecondLook(cell, self._test)
        for target in cell.targets:
            assert target.model is not None
            rng = generator(self.trial.seed, "judge", target.model_label, target.label, cell.id)
            found: dict[int, Prediction] = {}
            for threat, proposal in zip(cell.threats, proposals, strict=True):
                if id(proposal) not in found:
                    found[id(proposal)] = predict_proposals(target.model, self.clean(target), proposal, rng=rng)
                result = verdict(
                    target.model, self._test.x, self._test.y, self.clean(target), proposal, threat,
                    minimal=cell.attack.minimal, found=found[id(proposal)], rng=rng,
                )  # fmt: skip
                frames.append(self._frame(cell, target, threat, result, proposal))
                if target is cell.source:
                    looks.take(threat, proposal, result, rng=generator(self.trial.seed, "second look", cell.id))
                    if self.trial.number == 0:
                        examples = self._examples(cell, threat, result, proposal)
        note["confirmed"] = looks.check() if cell.source in cell.targets else None
        return pd.concat(frames, ignore_index=True), examples

    def _clean_rows(self, cell: Cell) -> pd.DataFrame:
        clean = self.clean(cell.source)
        data = self.trial.data
        missed = wrong(data.output, clean.reported, self._test.y, tolerance=data.tolerance)
        zero = missed.new_zeros(len(missed)).double()
        still = Verdict(
            prediction=clean,
            won=missed,
            eligible=torch.ones_like(missed),
            put_back=torch.zeros_like(missed),
            distances=dict.fromkeys(NORMS, zero),
        )
        return self._frame(cell, cell.source, None, still, None)

    def _frame(
        self, cell: Cell, target: Defended, threat: Threat | None, result: Verdict, proposal: Proposal | None
    ) -> pd.DataFrame:
        count = len(self._test)
        fixed: dict[str, Any] = {
            "cell": cell.id,
            "trial": self.trial.number,
            "model": target.model_label,
            "defense": target.label,
            "source": cell.source.label,
            "attack": "none" if cell.attack is None else cell.attack.label,
            **_threat_columns(threat),
        }
        rows: dict[str, Any] = {name: [value] * count for name, value in fixed.items()}
        rows |= {"sample_id": list(self._test.ids), "patient_id": list(self._test.patients)}
        rows |= {f"group:{name}": list(values) for name, values in self._test.groups.items()}
        columns = as_columns(result, self.clean(target), self._test.y, proposal, self._view(threat), range(count))
        return pd.DataFrame(rows | columns)

    def _view(self, threat: Threat | None) -> View:
        data = self.trial.data
        goal = None if threat is None else threat.goal
        return View(output=data.output, classes=data.classes, tolerance=data.tolerance, goal=goal)

    def _examples(
        self, cell: Cell, threat: Threat, result: Verdict, proposal: Proposal
    ) -> dict[str, np.ndarray] | None:
        rows = (result.won & proposal.attacked).nonzero().flatten()[:_EXAMPLES].cpu()
        if not len(rows):
            return None
        data, view, y = self.trial.data, self._view(threat), self._test.y
        clean = self.clean(cell.source)
        meta = {
            "model": cell.source.model_label,
            "defense": cell.source.label,
            "source": cell.source.label,
            "attack": cell.attack.label if cell.attack else "none",
            **{k: v for k, v in _threat_columns(threat).items() if k != "access"},
            "kind": data.kind,
            "channels_first": True,
            "value_range": data.value_range,
            "feature_names": data.feature_names,
            "feature_units": data.feature_units,
            "feature_scale": _spread(data, self.trial.split.train),
            "drawing": dict(data.drawing),
            "written": _written(data, self._test.x.cpu()[rows], proposal.x_adv.cpu()[rows]),
            "class_names": view.names,
            "output": data.output,
        }
        return {
            "clean": self._test.x.cpu()[rows].numpy(),
            "adversarial": proposal.x_adv.cpu()[rows].numpy(),
            "label": view.label(y).cpu()[rows].numpy(),
            "clean_prediction": view.prediction(clean, y).cpu()[rows].numpy(),
            "adversarial_prediction": view.prediction(result.prediction, y).cpu()[rows].numpy(),
            **_reports(data, y.cpu()[rows], clean.reported.cpu()[rows], result.prediction.reported.cpu()[rows]),
            "sample_id": np.array([self._test.ids[int(i)] for i in rows]),
            "meta": np.array(json.dumps(meta)),
        }

    def _inference_cost(self, one: Defended) -> float:
        """Return the CPU seconds of one prediction, the median of three passes over the first rows."""
        assert one.model is not None
        # A remote model has no CPU seconds here: three rows say so, and the rest of its query budget stays.
        x = self._test.x[: 1 if one.model.provenance.get("remote") else 500]
        spent = []
        for _ in range(3):
            began = time.process_time()
            predict(one.model, x, rng=generator(derive(self.trial.seed, "cost")))
            spent.append(time.process_time() - began)
        return float(np.median(spent)) / len(x)


def _reports(data: ClinicalData, *reported: torch.Tensor) -> dict[str, np.ndarray]:
    """Return truth and reports in full, where label and prediction only say right and wrong: findings, value, mask."""
    names = ("truth", "clean_report", "adversarial_report")
    return {} if data.output == "classes" else {n: one.numpy() for n, one in zip(names, reported, strict=True)}


def _spread(data: ClinicalData, train: Samples) -> list[float] | None:
    """Return the standard deviation of each feature, in whose units the report shows a change."""
    return train.x.std(dim=0).tolist() if data.kind in ("table", "expression", "methylation") else None


def _written(data: ClinicalData, clean: torch.Tensor, adversarial: torch.Tensor) -> dict[str, list[Any]] | None:
    """Return rows as a specialist reads them, where the data set can write them so."""
    if data.written is None:
        return None
    return {
        "clean": [data.written(row) for row in clean],
        "adversarial": [data.written(row) for row in adversarial],
    }


def _threat_columns(threat: Threat | None) -> Mapping[str, Any]:
    if threat is None:
        nothing = dict.fromkeys(("threat", "threat_family", "norm", "access"), "none")
        return nothing | {"eps": 0.0, "unit": "", "goal": "any-error"}
    return {
        "threat": threat.name,
        "threat_family": threat.family,
        "norm": threat.budget.norm,
        "eps": float(threat.budget.eps),
        "unit": threat.budget.unit,
        "access": threat.access,
        "goal": threat.goal.name,
    }


def _refuse_missing(source: Defended) -> None:
    if source.model is None:
        raise Incompatible(source.reason)
