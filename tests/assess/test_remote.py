"""Remote models: what is asked, which answers are taken, which fail, and what a budget stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.assess.inference_server import ENTRY, EXIT, InferenceServer, Reply, tensor_reply
from tests.assess.remote_models import NET, PROBES, answer, as_json, expected, failure, refusal, remote
from tests.assess.test_models import IMAGES, X, samples
from torch import nn

from titer.assess.models import ModelSpec, build, pretrained
from titer.assess.remote import forget_outages
from titer.core.errors import Incompatible, SpecError, TargetFailed
from titer.engine.metering import Meter


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    forget_outages()
    with InferenceServer(answer) as running:
        yield running


# Good answers


def test_scores_are_those_of_the_network_behind_the_server(server: InferenceServer) -> None:
    model = remote(server)
    assert torch.equal(model.logits(X), expected())
    assert (model.access, model.net, model.rebuild) == ("scores", None, None)
    assert pretrained(ModelSpec(label="a", endpoint={}))


def test_the_request_is_what_the_protocol_says(server: InferenceServer) -> None:
    remote(server, version="7").logits(X[:1])
    assert [one.path for one in server.asked[:2]] == ["/v2/health/ready", "/v2/models/net/versions/7"]
    last = server.inferences[-1]
    assert (last.method, last.path) == ("POST", "/v2/models/net/versions/7/infer")
    assert last.headers["Content-Type"] == "application/json"
    sent = last.content
    assert sent["outputs"] == [{"name": EXIT}]
    assert [(one["name"], one["shape"], one["datatype"]) for one in sent["inputs"]] == [(ENTRY, [1, 1, 8, 8], "FP32")]
    assert torch.equal(torch.tensor(sent["inputs"][0]["data"]), X[0].flatten() / 255)


def test_a_path_before_v2_is_kept_and_names_are_quoted(server: InferenceServer) -> None:
    server.others = {"/serving/v2/health/ready": Reply(status=418)}
    assert "/serving/v2/health/ready answered 418" in refusal(TargetFailed, f"{server.url}/serving/")
    assert "/v2/models/a%2Fb%20c answered 404 (no such path)" in refusal(TargetFailed, server, model="a/b c")


def test_requests_hold_no_more_rows_than_the_batch_size_on_one_connection(server: InferenceServer) -> None:
    model = remote(server, batch_size=16)
    assert torch.allclose(model.logits(X), NET(X / 255), atol=1e-6)
    sizes = [one.content["inputs"][0]["shape"][0] for one in server.inferences[PROBES:]]
    assert sizes == [16, 16, 8]
    assert len(server.connections) == 1


def test_no_rows_are_no_request(server: InferenceServer) -> None:
    model = remote(server)
    before = len(server.asked)
    assert model.logits(X[:0]).shape == (0, 2)
    assert len(server.asked) == before


def test_nested_data_is_read_as_well_as_flat(server: InferenceServer) -> None:
    model = remote(server)
    server.replies = [tensor_reply([[1.5, -2.0], [0.25, 3.0]], [2, 2])]
    assert model.logits(X[:2]).tolist() == [[1.5, -2.0], [0.25, 3.0]]


def test_probabilities_become_logits_and_are_not_taken_for_them(server: InferenceServer) -> None:
    server.answer = lambda x: NET(x).softmax(1)
    model = remote(server, output="probabilities")
    assert torch.allclose(model.logits(X).softmax(1), NET(X / 255).softmax(1), atol=1e-6)
    assert "set output = 'probabilities'" in refusal(SpecError, server)


def test_whole_number_types_send_whole_numbers(server: InferenceServer) -> None:
    server.datatype = "UINT8"
    table = {"url": server.url, "model": "net", "datatype": "UINT8"}
    spec = ModelSpec(label="ward", endpoint=table, preprocess="none")
    model = build(spec, IMAGES, samples(X), folder=Path(), seed=0)
    model.logits(torch.tensor([0.4, 0.6, 300.0, -5.0]).repeat(16).view(1, 1, 8, 8))
    sent = server.inferences[-1].content["inputs"][0]
    assert (sent["datatype"], sent["data"][:4]) == ("UINT8", [0, 1, 255, 0])
    assert all(isinstance(value, int) for value in sent["data"])


def test_a_datatype_that_the_server_does_not_take_is_told(server: InferenceServer) -> None:
    server.datatype = "FP64"
    assert "takes FP64 as 'image', not models.ward.endpoint.datatype = 'FP32'" in refusal(TargetFailed, server)
    forget_outages()
    assert torch.equal(remote(server, datatype="FP64").logits(X), expected())


def test_the_model_has_no_gradient(server: InferenceServer) -> None:
    model = remote(server)
    for seen in (model, model.limited("gradient"), model.limited("scores")):
        with pytest.raises(Incompatible):
            seen.evaluate(lambda logits: logits[:, 0], X[:2])


def test_the_meter_counts_the_rows_that_were_sent(server: InferenceServer) -> None:
    model, meter = remote(server, batch_size=3), Meter(5)
    before = server.rows
    seen = meter.watch(model.limited("scores"))
    seen.logits(X[:5])
    seen.logits(X[:5])
    assert meter.forwards.tolist() == [2.0] * 5
    assert server.rows - before == 10


def test_a_deep_network_agrees_over_the_wire(server: InferenceServer) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)).eval()
    server.answer = net
    with torch.no_grad():
        assert torch.allclose(remote(server).logits(X), net(X / 255), atol=1e-6)


# Decisions


def test_under_decision_access_only_the_largest_score_counts(server: InferenceServer) -> None:
    model = remote(server, access="decision")
    assert model.access == "decision"
    assert torch.equal(model.logits(X).argmax(1), NET(X / 255).argmax(1))
    assert model.logits(X).unique().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_one_score_for_two_classes_is_that_of_the_second(server: InferenceServer, output: str, column: bool) -> None:
    chances = NET(X / 255).softmax(1)

    def alone(x: torch.Tensor) -> torch.Tensor:
        chance = NET(x).softmax(1)[:, 1:]
        score = chance if output == "probabilities" else torch.logit(chance)
        return score if column else score.flatten()

    server.answer = alone
    model = remote(server, output=output)
    assert torch.allclose(model.logits(X).softmax(1), chances, atol=1e-6)
    server.replies = [tensor_reply([0.5] * 6, [3, 2])]
    assert "has the shape [3, 2]: allowed is [3, 1]" in failure(model)


@pytest.mark.parametrize("column", [False, True])
def test_a_server_may_answer_class_indices(server: InferenceServer, column: bool) -> None:
    server.answer = lambda x: NET(x).argmax(1, keepdim=column)
    model = remote(server, access="decision")
    assert torch.equal(model.logits(X).argmax(1), NET(X / 255).argmax(1))
    server.replies = [tensor_reply([0, 2, 1], [3], datatype="INT64")]
    assert "names a class that is none: allowed are 0 to 1" in failure(model)
    assert "is of datatype INT64: scores are not whole numbers" in refusal(TargetFailed, server)


# Answers that are none


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=500, body=b'{"error": "out of memory"}'), "/infer answered 500 (out of memory)"),
        (Reply(status=500, body=b"<html>\nno"), "answered 500 (<html>)"),
        (Reply(status=400, body=b""), "answered 400"),
        (Reply(status=204, body=b""), "answered 204"),
        (Reply(body=b"<html>"), "answered no JSON: '<html>'"),
        (Reply(body=b""), "answered no JSON: ''"),
        (Reply(body=b"[" * 10**5), "answered no JSON"),
        (Reply(body=b"3"), "output 'score' is not in the answer: it holds none"),
        (Reply(body=b'{"outputs": null}'), "is not in the answer"),
        (Reply(body=b'{"outputs": [{"name": "score"}]}'), "has no data of the shape that it claims"),
        (tensor_reply([1.0] * 6, [3, 2], name="logit"), "is not in the answer: it holds 'logit'"),
        (tensor_reply([1.0] * 9, [3, 3]), "has the shape [3, 3]: allowed is [3, 2]"),
        (tensor_reply([1.0] * 4, [2, 2]), "has the shape [2, 2]: allowed is [3, 2]"),
        (tensor_reply([1.0] * 5, [3, 2]), "has no data of the shape that it claims"),
        (tensor_reply([1.0, [2.0, 3.0]], [3]), "has no data of the shape that it claims"),
        (tensor_reply([1.0] * 6, [6]), "has the shape [6]"),
        (tensor_reply([1.0, 2, 3, 4, 5, float("nan")], [3, 2]), "has NaN or infinite values"),
        (tensor_reply([1.0, 2, 3, 4, 5, float("inf")], [3, 2]), "has NaN or infinite values"),
        (tensor_reply([1.0, 2, 3, 4, 5, 1e300], [3, 2]), "has NaN or infinite values"),
        (tensor_reply([1.0, 2, 3, 4, 5, None], [3, 2]), "allowed are numbers"),
        (tensor_reply(["1", "2", "3", "4", "5", "6"], [3, 2], datatype="BYTES"), "'BYTES': allowed are numbers"),
        (tensor_reply([True] * 6, [3, 2], datatype="BOOL"), "'BOOL': allowed are numbers"),
    ],
)
def test_an_answer_that_is_none_fails_with_its_reason(server: InferenceServer, reply: Reply, said: str) -> None:
    model = remote(server)
    server.replies = [reply]
    assert said in failure(model)
    assert torch.equal(model.logits(X), expected())


def test_rows_that_are_not_finite_are_not_sent(server: InferenceServer) -> None:
    model = remote(server)
    before = len(server.asked)
    with pytest.raises(TargetFailed, match="rows with NaN"):
        model.logits(X[:2] * float("nan"))
    assert len(server.asked) == before


def test_other_scores_for_the_same_rows_fail_the_model_and_not_the_plan(server: InferenceServer) -> None:
    server.answer = lambda x: torch.randn(len(x), 2)
    assert "returns other values for the same rows" in refusal(TargetFailed, server)


def test_a_model_with_several_tensors_needs_their_names(server: InferenceServer) -> None:
    pair = [{"name": "score", "datatype": "FP32", "shape": [-1, 2]}, {"name": "map", "datatype": "FP32", "shape": [-1]}]
    server.others = {"/v2/models/net": Reply(body=as_json({"inputs": [{"name": "image"}], "outputs": pair}))}
    said = refusal(TargetFailed, server)
    assert "lists the tensors 'score', 'map': models.ward.endpoint.output_name is not given, set it to one" in said
    assert "'scoer' is not one of them" in refusal(TargetFailed, server, output_name="scoer")
    assert torch.equal(remote(server, output_name="score").logits(X), expected())


def test_a_server_that_lists_no_tensors_is_told_their_names(server: InferenceServer) -> None:
    server.others = {"/v2/models/net": Reply(body=as_json({"name": "net", "platform": "p"}))}
    assert "lists the tensors none: models.ward.endpoint.input is not given" in refusal(TargetFailed, server)
    model = remote(server, input=ENTRY, output_name=EXIT)
    assert torch.equal(model.logits(X), expected())


# Building while the server is down


def test_a_server_that_is_not_there_fails_the_model(server: InferenceServer) -> None:
    server.__exit__()
    said = refusal(TargetFailed, server)
    assert said == f"failed: {server.url}/v2/health/ready cannot be reached: Connection refused"


def test_a_failure_to_build_is_remembered_until_a_new_assessment(server: InferenceServer) -> None:
    server.others = {"/v2/health/ready": Reply(status=400, body=b"starting")}
    said = refusal(TargetFailed, server)
    assert "/v2/health/ready answered 400 (starting)" in said
    server.others = {}
    before = len(server.asked)
    assert refusal(TargetFailed, server) == said
    assert len(server.asked) == before
    forget_outages()
    assert remote(server).logits(X).shape == (40, 2)


def test_the_digest_names_what_answers(server: InferenceServer) -> None:
    first = remote(server).provenance
    assert remote(server, timeout=4.0).provenance["weights"] == first["weights"]
    assert remote(server, version="2").provenance["weights"] != first["weights"]
    assert remote(server, access="decision").provenance["build"] != first["build"]
    server.datatype = "FP64"
    assert remote(server, datatype="FP64").provenance["weights"] != first["weights"]


# The budget


def test_a_call_beyond_the_budget_fails_before_it_is_sent(server: InferenceServer) -> None:
    model = remote(server, max_queries=2 * PROBES + 10, batch_size=4)
    model.logits(X[:6])
    before = server.rows
    said = failure(model, rows=5)
    assert "max_queries = 16 is too small: 12 rows were sent, and the next call needs 5 more" in said
    assert server.rows == before == 12
    model.logits(X[:4])
    assert server.rows == 16


def test_retries_cost_no_budget(server: InferenceServer) -> None:
    model = remote(server, max_queries=2 * PROBES + 3, retries=1)
    server.replies = [Reply(status=503, headers=(("Retry-After", "0"),)), None]
    assert model.logits(X[:3]).shape == (3, 2)
