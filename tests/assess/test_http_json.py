"""The channel to a remote model: time-outs, retries, redirects, secrets that are told nowhere, certificates."""

from __future__ import annotations

import logging
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
import torch
from tests.assess.inference_server import InferenceServer, Reply, tensor_reply
from tests.assess.remote_models import answer, as_json, expected, failure, refusal, remote
from tests.assess.test_models import X

from titer.assess.remote import forget_outages
from titer.core.errors import SpecError, TargetFailed

TOKEN = "k3y-of-the-ward"


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    forget_outages()
    with InferenceServer(answer) as running:
        yield running


# Time-outs, retries, redirects


def test_a_hang_ends_with_the_time_out_and_is_not_tried_again(server: InferenceServer) -> None:
    model = remote(server, timeout=0.3, retries=3)
    server.always = Reply(hang=20)
    before, began = len(server.asked), time.monotonic()
    assert "/infer gave no answer within 0.3 s" in failure(model)
    assert time.monotonic() - began < 3
    assert len(server.asked) == before + 1


def test_an_answer_that_drips_in_ends_with_the_time_out(server: InferenceServer) -> None:
    model = remote(server, timeout=0.4)
    server.replies = [Reply(body=b"{}", drips=100)]
    began = time.monotonic()
    assert "gave no whole answer within 0.4 s" in failure(model)
    assert time.monotonic() - began < 3
    assert torch.equal(model.logits(X), expected())


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_tried_again(server: InferenceServer, status: int) -> None:
    model = remote(server, retries=2)
    busy = Reply(status=status, headers=(("Retry-After", "0"),))
    server.replies = [busy, busy, None]
    before = len(server.inferences)
    assert torch.equal(model.logits(X), expected())
    assert len(server.inferences) == before + 3


def test_a_broken_connection_is_tried_again(server: InferenceServer) -> None:
    model = remote(server, retries=1)
    server.replies = [Reply(drop=True), None]
    assert torch.equal(model.logits(X), expected())


def test_retry_after_is_waited_for_even_where_the_backoff_is_shorter(server: InferenceServer) -> None:
    model = remote(server, retries=1)
    server.replies = [Reply(status=503, headers=(("Retry-After", "1"),)), None]
    began = time.monotonic()
    model.logits(X[:1])
    assert 1 <= time.monotonic() - began < 4


@pytest.mark.parametrize("after", ["soon", "-5", ""])
def test_a_retry_after_that_is_none_is_ignored(server: InferenceServer, after: str) -> None:
    model = remote(server, retries=1)
    server.replies = [Reply(status=503, headers=(("Retry-After", after),)), None]
    assert model.logits(X[:1]).shape == (1, 2)


def test_retries_come_to_an_end(server: InferenceServer) -> None:
    model = remote(server, retries=1)
    server.always = Reply(status=503, body=b'{"error": "busy"}')
    before = len(server.inferences)
    assert "answered 503 (busy) (2 tries)" in failure(model)
    assert len(server.inferences) == before + 2


def test_an_error_of_the_server_itself_is_not_tried_again(server: InferenceServer) -> None:
    model = remote(server, retries=3)
    server.always = Reply(status=500)
    before = len(server.inferences)
    assert "answered 500" in failure(model)
    assert len(server.inferences) == before + 1


def test_after_three_failures_in_a_row_nothing_is_asked_any_more(server: InferenceServer) -> None:
    model = remote(server)
    server.always = Reply(status=500, body=b"broken")
    said = [failure(model) for _ in range(3)]
    before = len(server.asked)
    assert failure(model) == f"{said[-1]}; it is not asked again after 3 failures in a row"
    assert len(server.asked) == before


def test_a_redirect_is_not_followed(server: InferenceServer) -> None:
    with InferenceServer(answer) as elsewhere:
        model = remote(server)
        for status in (301, 302, 307, 308):
            server.replies = [Reply(status=status, headers=(("Location", f"{elsewhere.url}/v2/models/net/infer"),))]
            assert f"answered {status}" in failure(model)
            model.logits(X[:1])
        assert elsewhere.asked == []


def test_an_answer_without_end_is_cut_off(server: InferenceServer) -> None:
    model = remote(server)
    server.replies = [Reply(body=b" " * (2**26 + 2**20))]
    assert "answered more than 64 MiB" in failure(model)


# Secrets and certificates


@pytest.mark.parametrize("kind", ["env", "file"])
def test_the_token_is_sent_and_told_nowhere(
    server: InferenceServer,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("WARD_TOKEN", TOKEN)
    (tmp_path / "token.txt").write_text(f"{TOKEN}\n")
    given = {"token_env": "WARD_TOKEN"} if kind == "env" else {"token_file": "token.txt"}
    model = remote(server, tmp_path, **given)
    assert {one.headers["Authorization"] for one in server.asked} == {f"Bearer {TOKEN}"}
    echo = f"you sent Bearer {TOKEN}"
    filler = "x" * (160 - 20)
    replies = [
        Reply(status=401, body=as_json({"error": echo})),
        Reply(status=403, body=f"{filler} {echo}".encode()),
        Reply(body=f"{filler}{TOKEN}".encode()),
        tensor_reply([1.0] * 6, [3, 2], name=TOKEN),
    ]
    said = []
    for reply in replies:
        server.replies = [reply, None]
        said.append(failure(model))
        model.logits(X[:1])
    assert "answered 401 (you sent Bearer ***)" in said[0]
    told = [*said, repr(model), str(model.provenance), caplog.text]
    assert not any(TOKEN[:6] in text for text in told)


def test_without_a_token_none_is_sent(server: InferenceServer) -> None:
    remote(server)
    assert not any("Authorization" in one.headers for one in server.asked)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no token"),
        ("two words", "holds no token"),
        ("schlüssel", "holds no token"),
    ],
)
def test_a_token_file_without_a_token_is_the_users_mistake(
    server: InferenceServer, tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "token.txt").write_text(content, encoding="utf-8")
    message = refusal(SpecError, server, tmp_path, token_file="token.txt")
    assert said in message
    assert not content or content not in message
    assert server.asked == []


def test_a_variable_that_is_not_set_is_the_users_mistake(
    server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WARD_TOKEN", raising=False)
    assert "'WARD_TOKEN': this environment variable is not set" in refusal(SpecError, server, token_env="WARD_TOKEN")
    monkeypatch.setenv("WARD_TOKEN", f"{TOKEN}\r\nX-Other: 1")
    message = refusal(SpecError, server, token_env="WARD_TOKEN")
    assert "holds no token" in message
    assert TOKEN not in message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key."""
    if which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 -addext keyUsage=digitalSignature,keyCertSign "
        f"-keyout {path} -out {path}.crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_https_is_trusted_by_the_given_certificates_only(certificate: Path, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    forget_outages()
    with InferenceServer(answer, tls=tls) as server:
        said = refusal(TargetFailed, server, retries=3)
        assert "cannot be trusted: self-signed certificate" in said
        model = remote(server, certificate.parent, verify="own.pem.crt")
        assert torch.equal(model.logits(X), expected())
        assert "cannot be trusted" in refusal(
            TargetFailed, server.url.replace("127.0.0.1", "localhost"), verify=str(certificate) + ".crt"
        )
    (tmp_path / "no.pem").write_text("no certificate")
    for name in ("no.pem", "absent.pem"):
        assert f"verify = {name!r} is not a file of certificates" in refusal(
            SpecError, "https://x", tmp_path, verify=name
        )
