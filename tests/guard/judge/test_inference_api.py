"""The Open Inference Protocol with a verdict in every answer, asked by a real client over HTTP's own types."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Header, HTTPException
from tests.guard.judge import faults
from tests.guard.judge.scene import all_of, verdicts_of

from titer.guard.audit.verify import verified
from titer.guard.context import Context
from titer.guard.judge import contract
from titer.guard.judge.demo import demo_model
from titer.guard.judge.inference_api import router
from titer.guard.judge.layers import switch
from titer.guard.judge.runtime import Opener, open_bundle
from titer.guard.judge.workers import Workers, share, unshare
from titer.guard.store.tables import audit, findings


def _require(permission: str) -> Any:
    def check(account: Annotated[str | None, Header()] = None) -> str:
        if permission != "public" and account is None:
            raise HTTPException(401, "log in first")
        return account or "nobody"

    return check


@contextmanager
def _client(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve on a free port of this machine for as long as the client is there."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"account": "pacs-ai"}, timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture
def served(guard, bundle) -> Iterator[Callable[..., tuple[Context, httpx.Client]]]:
    made: list[tuple[Context, Workers]] = []

    def make(opener: Opener = open_bundle, more: str = "") -> tuple[Context, httpx.Client]:
        context = guard(model=bundle, more=more)
        workers = Workers(context, opener)
        share(context, workers)
        made.append((context, workers))
        app = FastAPI()
        app.include_router(router(context, _require))
        return context, ended.enter_context(_client(app))

    with ExitStack() as ended:
        yield make
    for context, workers in made:
        unshare(context)
        workers.stop()


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    """Clean images of which the model is sure."""
    model, data, _ = demo_model(0)
    logits = model.logits(data.validation.x)
    order = (logits[:, 0] - logits[:, 1]).abs().argsort(descending=True)
    return data.validation.x[order[20:60]].numpy()


def _body(rows: np.ndarray, **more: Any) -> dict[str, Any]:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": rows.tolist()}
    return {"inputs": [tensor | more]}


def _infer(client: httpx.Client, rows: np.ndarray, **more: Any) -> Any:
    return client.post("/v2/models/chest/infer", json=_body(rows, **more))


def test_health_and_metadata_say_what_the_model_takes(served):
    _, client = served()
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    found = client.get("/v2/models/chest").json()
    assert found["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert found["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]
    assert client.get("/v2/models/chest/ready").json()["ready"] is True
    assert client.get("/v2/models/brain").status_code == 404
    assert client.get("/v2/models/..%2Fkeys").status_code == 404


def test_who_did_not_log_in_gets_nothing_but_health(served, clean):
    _, client = served()
    del client.headers["account"]
    assert client.get("/v2/models/chest").status_code == 401
    assert _infer(client, clean[:1]).status_code == 401
    assert client.get("/v2/health/live").status_code == 200


def test_a_clean_input_passes_with_its_result_and_a_strange_one_is_withheld(served, clean):
    context, client = served()
    outcomes = [_infer(client, clean[place : place + 1]).json() for place in range(20)]
    passed = [one for one in outcomes if one["parameters"]["verdict"] == "PASS"]
    assert len(passed) >= 16
    (output,) = passed[0]["outputs"]
    assert output["shape"] == [1, 2]
    assert sum(output["data"]) == pytest.approx(1, abs=1e-5)
    noise = np.random.default_rng(0).choice([0.0, 255.0], size=(1, 1, 28, 28))
    held = _infer(client, noise).json()
    assert held["outputs"] == []
    assert held["parameters"]["verdict"] == "FLAG"
    assert "above its threshold" in held["parameters"]["reasons"][0]
    (row,) = [one for one in verdicts_of(context, "request") if one.id == held["parameters"]["verdict_id"]]
    assert (row.state, row.outcome) == ("held", "FLAG")
    assert verified(context.home)[1] == []


def test_g4_a_verdict_of_a_request_names_its_input_model_and_bundle(served, clean):
    context, client = served()
    told = _infer(client, clean[:2]).json()
    (row,) = verdicts_of(context, "request")
    assert row.input_digest == told["parameters"]["input_sha256"] == contract.digest(clean[:2].astype(np.float32))
    assert row.model_digest == told["parameters"]["model_sha256"]
    assert row.bundle_version == told["model_version"]


@pytest.mark.parametrize("opener", [faults.crashing, faults.no_chance, faults.no_number, faults.refusing])
def test_g7_a_model_that_fails_withholds_the_outputs(served, clean, opener):
    context, client = served(opener)
    told = _infer(client, clean[:1])
    assert told.status_code == 200
    assert told.json()["outputs"] == []
    assert told.json()["parameters"]["verdict"] == "FLAG"
    assert [row.state for row in verdicts_of(context, "request")] == ["held"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("not json", "Invalid JSON"),
        ("{}", "inputs"),
        (json.dumps({"inputs": []}), "inputs"),
        (json.dumps(_body(np.zeros((1, 1, 28, 29)))), "shape = [1, 1, 28, 29]: allowed is"),
        (json.dumps(_body(np.zeros((1, 1, 28, 28)), datatype="FP64")), "datatype"),
        (json.dumps(_body(np.zeros((1, 1, 28, 28)), name="x")), "name"),
        (json.dumps(_body(np.full((1, 1, 28, 28), 256.0))), "allowed are 0 to 255"),
        (json.dumps(_body(np.zeros((1, 1, 28, 28)), shape=[40, 1, 28, 28])), "N from 1 to 32"),
        (json.dumps(_body(np.zeros((1, 1, 28, 28)), shape=[-1, 1, 28, 28])), "N from 1 to 32"),
        (json.dumps(_body(np.zeros((1, 1, 28, 28)), extra=1)), "extra"),
        (json.dumps(_body(np.full((1, 1, 28, 28), np.nan))), "data"),
        ("[" * 100000, "Invalid JSON"),
    ],
)
def test_a_request_that_breaks_the_contract_is_refused_before_the_model_sees_it(served, body, said):
    context, client = served(faults.dying)
    told = client.post("/v2/models/chest/infer", content=body)
    assert told.status_code == 400, told.text
    assert said in told.json()["detail"]
    assert verdicts_of(context, "request") == []


def test_a_body_that_is_too_long_is_not_read(served):
    _, client = served(faults.dying, more="[web]\nmax_upload_mib = 1\n")
    told = client.post("/v2/models/chest/infer", content=b"x" * (3 << 20))
    assert told.status_code == 413


def test_who_asks_too_often_waits(served, clean):
    _, client = served(faults.well, more="[judge]\nrequests_per_minute = 3\n")
    told = [_infer(client, clean[:1]).status_code for _ in range(5)]
    assert told == [200, 200, 200, 429, 429]
    assert _infer_as(client, "another", clean[:1]).status_code == 200


def test_who_may_be_copying_the_model_is_stopped_and_the_alert_is_written_once(served, clean):
    context, client = served(faults.well, more="[judge]\nqueries_per_day = 10\n")
    told = [_infer(client, clean[:4]) for _ in range(5)]
    assert [one.status_code for one in told] == [200, 200, 429, 429, 429]
    assert "query budget" in told[-1].json()["detail"]
    assert int(told[-1].headers["Retry-After"]) > 0
    alerts = [row.event for row in all_of(context, audit) if "110113" in row.event]
    assert len(alerts) == 1
    assert "AML.T0024.002" in alerts[0]
    assert "pacs-ai" in alerts[0]


def test_a_layer_that_is_off_is_told_to_the_client(served, clean):
    context, client = served()
    switch(context, "chest", "detectors", on=False, account="ada")
    noise = np.random.default_rng(0).choice([0.0, 255.0], size=(1, 1, 28, 28))
    told = _infer(client, noise).json()
    assert told["parameters"]["verdict"] == "PASS"
    assert told["parameters"]["reasons"] == ["the layer detectors is switched off for route chest"]
    assert all_of(context, findings)[0].rule == "layer-off"
    switch(context, "chest", "model", on=False, account="ada")
    assert _infer(client, clean[:1]).json()["outputs"] == []


def _infer_as(client: httpx.Client, account: str, rows: np.ndarray) -> Any:
    return client.post("/v2/models/chest/infer", json=_body(rows), headers={"account": account})


def test_a_damaged_bundle_is_not_ready(served, bundle: Path):
    context, client = served()
    (context.home.models / "chest" / "model.safetensors").write_bytes(b"x")
    assert client.get("/v2/models/chest/ready").status_code == 503
    assert bundle.is_dir()
