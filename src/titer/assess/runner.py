"""Runs one cell: propose, judge on every target, and keep rows, examples and costs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from titer.assess.cells import FORMAT_VERSION, Cell, CellStore
from titer.assess.judge import (
    Prediction,
    Proposal,
    Verdict,
    as_columns,
    predict,
    predict_proposals,
    propose,
    reached,
    verdict,
)
from titer.assess.trial import Defended, Trial
from titer.core.errors import Incompatible
from titer.core.plugins import make_attack
from titer.core.randomness import derive, generator
from titer.core.threat import Threat

_EXAMPLES = 4


class Runner:
    """Runs the cells of one source; clean predictions are made once."""

    def __init__(self, trial: Trial, store: CellStore) -> None:
        self.trial = trial
        self.store = store
        self._test = trial.split.test.to(trial.device)
        self._clean: dict[str, Prediction] = {}

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
                proposal = self._propose(cell)
                frame, examples = self._attacked_rows(cell, proposal)
                note["attack_cpu_seconds"] = proposal.attack_cpu_seconds
        except Incompatible as reason:
            self.store.save(cell.id, note | {"skipped": str(reason)})
            return
        note |= {"cpu_seconds": time.process_time() - began, "rows": len(self._test)}
        self.store.save(cell.id, note, frame, examples)

    def clean(self, one: Defended) -> Prediction:
        """Return the judge's clean predictions of one model."""
        if one.label not in self._clean:
            assert one.model is not None
            rng = generator(self.trial.seed, "judge", one.model_label, one.label, "clean")
            self._clean[one.label] = predict(one.model, self._test.x, rng=rng)
        return self._clean[one.label]

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

    def _propose(self, cell: Cell) -> Proposal:
        assert cell.attack is not None
        assert cell.source.model is not None
        threat = cell.threats[-1]
        label = (cell.source.model_label, cell.source.label, cell.attack.label, threat.name)
        already_won = reached(threat, self.clean(cell.source), self._test.y)
        return propose(
            make_attack(cell.attack.spec),
            cell.source.model,
            self._test.x,
            self._test.y,
            threat,
            already_won,
            minimal=cell.attack.minimal,
            rng=generator(self.trial.seed, "attack", *label),
        )

    def _attacked_rows(self, cell: Cell, proposal: Proposal) -> tuple[pd.DataFrame, dict[str, np.ndarray] | None]:
        assert cell.attack is not None
        frames, examples = [], None
        for target in cell.targets:
            assert target.model is not None
            rng = generator(self.trial.seed, "judge", target.model_label, target.label, cell.id)
            found = predict_proposals(target.model, self.clean(target), proposal, rng=rng)
            for threat in cell.threats:
                result = verdict(
                    target.model, self._test.x, self._test.y, self.clean(target), proposal, threat,
                    minimal=cell.attack.minimal, found=found, rng=rng,
                )  # fmt: skip
                frames.append(self._frame(cell, target, threat, result, proposal))
                if target is cell.source and self.trial.number == 0:
                    examples = self._examples(cell, threat, result, proposal)
        return pd.concat(frames, ignore_index=True), examples

    def _clean_rows(self, cell: Cell) -> pd.DataFrame:
        clean = self.clean(cell.source)
        wrong = clean.classes != self._test.y
        zero = wrong.new_zeros(len(wrong)).double()
        still = Verdict(
            prediction=clean,
            won=wrong,
            put_back=wrong.new_zeros(len(wrong)),
            distances={"linf": zero, "l2": zero, "l1": zero},
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
        rows["label"] = self._test.y.cpu().numpy()
        return pd.DataFrame(rows | as_columns(result, self.clean(target), proposal, range(count)))

    def _examples(
        self, cell: Cell, threat: Threat, result: Verdict, proposal: Proposal
    ) -> dict[str, np.ndarray] | None:
        rows = (result.won & proposal.attacked).nonzero().flatten()[:_EXAMPLES].cpu()
        if not len(rows):
            return None
        data = self.trial.data
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
            "feature_scale": self.trial.split.train.x.std(dim=0).tolist() if data.kind == "table" else None,
            "class_names": data.classes,
        }
        return {
            "clean": self._test.x.cpu()[rows].numpy(),
            "adversarial": proposal.x_adv.cpu()[rows].numpy(),
            "label": self._test.y.cpu()[rows].numpy(),
            "clean_prediction": self.clean(cell.source).classes.cpu()[rows].numpy(),
            "adversarial_prediction": result.prediction.classes.cpu()[rows].numpy(),
            "sample_id": np.array([self._test.ids[int(i)] for i in rows]),
            "meta": np.array(json.dumps(meta)),
        }

    def _inference_cost(self, one: Defended) -> float:
        """Return the CPU seconds of one prediction, the median of three passes over the first rows."""
        assert one.model is not None
        x = self._test.x[:500]
        spent = []
        for _ in range(3):
            began = time.process_time()
            predict(one.model, x, rng=generator(derive(self.trial.seed, "cost")))
            spent.append(time.process_time() - began)
        return float(np.median(spent)) / len(x)


def _threat_columns(threat: Threat | None) -> Mapping[str, Any]:
    if threat is None:
        return {"threat": "none", "threat_family": "none", "norm": "none", "eps": 0.0, "unit": "", "access": "none"}
    return {
        "threat": threat.name,
        "threat_family": threat.family,
        "norm": threat.budget.norm,
        "eps": float(threat.budget.eps),
        "unit": threat.budget.unit,
        "access": threat.access,
    }


def _refuse_missing(source: Defended) -> None:
    if source.model is None:
        raise Incompatible(source.reason)
