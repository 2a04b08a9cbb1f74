"""A whole assessment with remote models: those that fail carry their reasons, everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.assess.inference_server import InferenceServer, Reply
from tests.assess.plans import tiny
from tests.assess.remote_models import PROBES
from torch import Generator, Tensor, nn

from titer.assess.estimate import grid_text
from titer.assess.plan import Plan
from titer.assess.run import assess
from titer.core.errors import SpecError
from titer.core.model import Model
from titer.core.registry import SHELVES, Plugin
from titer.core.threat import Threat
from titer.report.build import build as build_report

TOKEN = "t0ken-of-the-clinic"
DECISION = ', access = "decision"'
PLAN = """
name = "remote"
trials = 1
seed = 7
attacks = ["fgsm", "noise"]

[data]
name = "cytology"

[training]
epochs = 5

[[threats]]
norm = "linf"
eps = [0.5]
unit = "sd"

[[threats]]
norm = "linf"
eps = [0.5]
unit = "sd"
family = "seen by scores"
access = "scores"
"""
LOCAL = """
[[models]]
label = "local"
network = { name = "mlp", hidden = [16] }
"""


def endpoint(label: str, url: str, more: str = "") -> str:
    settings = f'url = "{url}", model = "net", retries = 0, timeout = 2.0, token_env = "CLINIC_TOKEN"{more}'
    return f'\n[[models]]\nlabel = "{label}"\nendpoint = {{ {settings} }}\n'


def noise() -> Callable[..., Tensor]:
    """Up to a tenth more of each value, looked at once."""

    def run(model: Model, x: Tensor, y: Tensor, threat: Threat, *, rng: Generator) -> Tensor:
        del y
        found = threat.project(x * (1 + 0.1 * torch.rand(x.shape, generator=rng)), x)
        model.logits(found)
        return found

    return run


@pytest.fixture(scope="module", autouse=True)
def _shelf() -> Iterator[None]:
    shelf = SHELVES["attacks"]
    shelf.all()
    plugin = Plugin(name="noise", shelf="attacks", factory=noise, title="Noise", paper="None, 2026")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shelf._plugins, "noise", plugin)
        patch.setenv("CLINIC_TOKEN", TOKEN)
        yield


def clinic_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(30, 2)


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    with InferenceServer(clinic_net()) as running:
        yield running


def skipped(out: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads((out / "skipped.json").read_text())["cells"])


def plan(folder: Path, *models: str) -> Plan:
    return tiny(folder, PLAN + "".join(models))


def test_one_failing_endpoint_leaves_the_rest_as_it_is(tmp_path: Path, server: InferenceServer) -> None:
    with InferenceServer(clinic_net()) as broken:
        # Answered are the probes of check, training and cells, and two of three requests of the clean rows.
        broken.replies = [None] * (3 * PROBES + 2)
        broken.always = Reply(status=500, body=f"out of memory for {TOKEN}".encode())
        models = [
            LOCAL,
            endpoint("good", server.url),
            endpoint("broken", broken.url),
            endpoint("gone", "http://127.0.0.1:1"),
            endpoint("poor", server.url, ", max_queries = 200"),
        ]
        out = assess(plan(tmp_path, *models), tmp_path / "out", workers=1)
    outcomes, failed = pd.read_parquet(out / "outcomes.parquet"), skipped(out)
    rows = outcomes.groupby(["model", "attack", "threat_family"]).size().to_dict()
    count = outcomes["sample_id"].nunique()
    local = {("local", "none", "none"), ("local", "fgsm", "linf")}
    local |= {("local", "noise", family) for family in ("linf", "seen by scores")}
    good = {("good", "none", "none")} | {("good", "noise", family) for family in ("linf", "seen by scores")}
    assert set(rows) >= local | good
    assert {rows[key] for key in local | good} == {count}
    assert set(rows) - local - good == {("poor", "none", "none")}
    reasons = {label: set(part["reason"]) for label, part in failed.groupby("model")}
    assert all("gradient" in reason for reason in reasons["local"] | reasons["good"])
    assert reasons["broken"] == {f"failed: {broken.url}/v2/models/net/infer answered 500 (out of memory for ***)"} | {
        one for one in reasons["broken"] if "not asked again" in one or "gradient" in one
    }
    assert reasons["gone"] == {"failed: http://127.0.0.1:1/v2/health/ready cannot be reached: Connection refused"}
    assert any("max_queries = 200 is too small" in one for one in reasons["poor"])
    assert len(failed[failed["model"] == "gone"]) == 5
    report = build_report(out)
    assert "answered 500 (out of memory for ***)" in report.read_text()
    assert not [path for path in out.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_the_meter_of_a_remote_cell_is_what_the_server_saw(tmp_path: Path, server: InferenceServer) -> None:
    out = assess(plan(tmp_path, endpoint("good", server.url)), tmp_path / "out", workers=1)
    outcomes = pd.read_parquet(out / "outcomes.parquet")
    noise_rows = outcomes[outcomes["attack"] == "noise"]
    right = noise_rows["clean_prediction"] == noise_rows["label"]
    assert (noise_rows.loc[right, "forwards"] == 1).all()
    assert (noise_rows.loc[~right, "forwards"] == 0).all()
    assert (noise_rows["backwards"] == 0).all()


def test_a_failed_cell_is_tried_again_by_the_next_call(tmp_path: Path, server: InferenceServer) -> None:
    models = (LOCAL, endpoint("good", server.url))
    server.others = {"/v2/models/net": Reply(status=500)}
    first = assess(plan(tmp_path, *models), tmp_path / "out", workers=1)
    assert set(pd.read_parquet(first / "outcomes.parquet")["model"]) == {"local"}
    server.others = {}
    server.replies = [None] * (3 * PROBES)
    server.always = Reply(status=500)
    second = assess(plan(tmp_path, *models), tmp_path / "out", workers=1)
    assert set(pd.read_parquet(second / "outcomes.parquet")["model"]) == {"local"}
    kept = {path.name for path in (second / "cells").iterdir()}
    server.always = None
    third = assess(plan(tmp_path, *models), tmp_path / "out", workers=1)
    assert set(pd.read_parquet(third / "outcomes.parquet")["model"]) == {"local", "good"}
    assert kept <= {path.name for path in (third / "cells").iterdir()}
    assert not skipped(third)["reason"].str.startswith("failed").any()


def test_workers_of_their_own_ask_the_same_server(tmp_path: Path, server: InferenceServer) -> None:
    text = PLAN.replace(', "noise"', "") + endpoint("good", server.url) + endpoint("decides", server.url, DECISION)
    out = assess(tiny(tmp_path, text), tmp_path / "out", workers=2)
    clean = pd.read_parquet(out / "outcomes.parquet")
    assert set(clean["model"]) == {"good", "decides"}
    wide = clean.pivot_table(index="sample_id", columns="model", values="clean_prediction")
    assert (wide["good"] == wide["decides"]).all()


def test_a_plan_of_nothing_but_failures_says_why(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no model of the plan could be assessed: failed: http"):
        assess(plan(tmp_path, endpoint("gone", "http://127.0.0.1:1")), tmp_path / "out", workers=1)


def test_a_dry_run_tells_the_queries_and_spends_none_on_attacks(tmp_path: Path, server: InferenceServer) -> None:
    models = (endpoint("good", server.url), endpoint("gone", "http://127.0.0.1:1"))
    text = grid_text(plan(tmp_path, *models), workers=1)
    assert "good, none: at most 380 queries a trial for the attacks" in text
    assert "gone cannot be assessed now: failed: http://127.0.0.1:1" in text
    assert server.rows == 6
