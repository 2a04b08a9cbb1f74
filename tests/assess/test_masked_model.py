"""Models that only hide their gradients: the report's first page must call them out, and never praise them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from tests.assess.plans import tiny

from titer.assess.run import assess
from titer.report.build import build

NETWORKS = '''
import torch
from torch import nn


class Masked(nn.Module):
    """Trains like any network; once in use it hides its gradients."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.net = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x):
        if self.training:
            return self.net(x)
        if self.kind == "scaled":
            return 1e6 * self.net(x)
        # Zero times the input keeps the graph, so that the gradient exists and is exactly zero.
        return self.net(torch.round(8 * x).detach() / 8) + 0 * x.sum(1, keepdim=True)


def build(kind):
    return Masked(kind)
'''
PLAN = """
name = "masked"
trials = 1
attacks = ["fgsm", {{ name = "pgd", steps = 10 }}]

[data]
name = "cytology"

[training]
epochs = 10
batch_size = 32
learning_rate = 0.01

[[models]]
label = "masked"
network = {{ name = "masked_nets:build", kind = "{kind}" }}

[[threats]]
norm = "linf"
eps = [0.5]
unit = "sd"
"""


def run(kind: str, folder: Path) -> Path:
    """Assess a masked model and build its report."""
    (folder / "masked_nets.py").write_text(NETWORKS)
    out = assess(tiny(folder, PLAN.format(kind=kind)), folder / "out", workers=1)
    build(out)
    return out


def failed(out: Path) -> set[str]:
    checks = json.loads((out / "sanity.json").read_text())["checks"]
    return {one["check"] for one in checks if one["result"] == "fail"}


def first_page(out: Path) -> str:
    """Return the report's text up to its second section, tags taken out."""
    html = (out / "report.html").read_text()
    sections = html.split("<section")
    return re.sub(r"<[^>]+>", " ", "".join(sections[:2] if "verdict" in sections[1].lower() else sections[:3]))


@pytest.mark.parametrize("kind", ["scaled", "rounded"])
def test_the_first_page_calls_it_out(kind: str, tmp_path: Path) -> None:
    out = run(kind, tmp_path)
    assert "gradients-not-zero" in failed(out)
    page = first_page(out).lower()
    assert "robustness overestimated" in page
    assert "gradient vanishes" in page
    report = json.loads((out / "report.json").read_text())
    assert "gradients-not-zero" in json.dumps(report)


def test_scaled_logits_look_as_weak_as_they_are(tmp_path: Path) -> None:
    """Attacks climb the log odds, so that scaled logits do not stop them; a plain cross-entropy attack sees nothing."""
    out = run("scaled", tmp_path)
    metrics = pd.read_parquet(out / "metrics.parquet")
    overall = metrics[metrics["group"] == "all"].set_index("attack")["accuracy"]
    assert overall["none"] > 0.9
    assert overall["worst-case"] < 0.6


def test_rounded_inputs_are_doubted_although_no_attack_succeeds(tmp_path: Path) -> None:
    out = run("rounded", tmp_path)
    assert {"gradients-not-zero", "loss-rises-along-the-attack", "success-reaches-100-percent-as-eps-grows"} <= failed(
        out
    )
