"""The server itself: TLS, a port that is in use, what random requests do to it, and login by a real provider."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
import schemathesis
import trustme
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.guard.web import seed

from titer.core.errors import SpecError
from titer.guard.settings import OIDCSettings, TLSSettings
from titer.guard.web.access import COOKIE
from titer.guard.web.app import make_app
from titer.guard.web.component import Web


@pytest.fixture
def certificates(context) -> tuple[trustme.CA, TLSSettings]:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    root = context.home.root
    made.private_key_pem.write_to_path(str(root / "web.key"))
    for blob in made.cert_chain_pems:
        blob.write_to_path(str(root / "web.pem"), append=True)
    authority.cert_pem.write_to_path(str(root / "ca.pem"))
    return authority, TLSSettings(certificate=Path("web.pem"), key=Path("web.key"), authorities=Path("ca.pem"))


def with_web(context, **values):
    web = context.settings.web.model_copy(update=values)
    return replace(context, settings=context.settings.model_copy(update={"web": web}))


def test_https_has_secure_cookies_hsts_and_no_old_tls(context, certificates) -> None:
    authority, tls = certificates
    seed.person(context, "anna", "radiologist")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    web = Web(with_web(context, tls=tls), listener=listener)
    web.start()
    try:
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        with httpx.Client(verify=trusted, base_url=f"https://127.0.0.1:{port}") as client:
            answer = client.post("/login", data={"name": "anna", "password": seed.PASSWORD})
            assert answer.status_code == 303
            assert "Secure" in answer.headers["set-cookie"]
            assert answer.headers["strict-transport-security"].startswith("max-age=")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises(ssl.SSLError):
            old.wrap_socket(raw)
        assert web.trouble() is None
    finally:
        web.stop()
        listener.close()
    assert web.trouble() == "the web server does not run"


def test_a_port_in_use_or_a_missing_certificate_is_said_before_it_starts(context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SpecError, match=f"web.host, web.port = 127.0.0.1:{port}"):
            Web(with_web(context, port=port)).start()
    tls = TLSSettings(certificate=Path("no.pem"), key=Path("no.key"), authorities=Path("no.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(SpecError, match=r"web\.tls"):
        Web(with_web(context, tls=tls), listener=listener).start()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_request_that_the_description_allows_breaks_the_server(context) -> None:
    seed.person(context, "ada", "admin")
    cookie = seed.cookie(context, "ada", "admin")
    app = make_app(with_web(context, requests_per_minute=10**6, logins_per_minute=10**6))
    document = dict(app.openapi())
    document.pop("security")  # else it makes up tokens of its own, and is refused before anything is read
    document["components"] = {k: v for k, v in document["components"].items() if k != "securitySchemes"}
    schema = schemathesis.openapi.from_dict(document)
    from tests.guard.web.conftest import csrf

    headers = {"X-CSRF-Token": csrf(context, "ada"), "Cookie": f"{COOKIE}={cookie}"}
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) > 25
    sent = []
    with TestClient(app, follow_redirects=False, raise_server_exceptions=False) as client:
        for operation in operations:
            if operation.path == "/logout":
                continue

            @given(case=operation.as_strategy())
            @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            def one(case) -> None:
                request = case.as_transport_kwargs(base_url="http://testserver")
                request["headers"] = {**dict(request.get("headers") or {}), **headers}
                request.pop("cookies", None)
                answer = client.request(**{k: v for k, v in request.items() if v is not None})
                sent.append(answer.status_code)
                assert answer.status_code < 500, f"{case.method} {case.path}: {answer.text[:200]}"

            one()
    assert len(sent) > 100
    assert 200 in sent
    assert sent.count(401) < len(sent) / 4, "the session was there"


class Provider(BaseHTTPRequestHandler):
    """A small OpenID provider: discovery, keys, and a token endpoint that checks the code's PKCE challenge."""

    key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
    claims: ClassVar[dict] = {}
    codes: ClassVar[dict] = {}

    def log_message(self, *_: object) -> None: ...

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _answer(self, body: object, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path == "/keys":
            return self._answer({"keys": [self.key.as_dict(private=False)]})
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        found = {name: f"{self.issuer}/{path}" for name, path in paths.items()}
        return self._answer({"issuer": self.issuer, **found})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        asked = self.codes.pop(form["code"][0], None)
        if asked is None or create_s256_code_challenge(form["code_verifier"][0]) != asked["code_challenge"]:
            return self._answer({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": asked["client_id"], "sub": "s-1", "exp": now + 60, "iat": now,
                  "nonce": asked["nonce"], "roles": ["rad"], **self.claims}  # fmt: skip
        token = jwt.encode({"alg": "ES256", "kid": "one"}, claims, self.key)
        return self._answer({"access_token": "x", "token_type": "Bearer", "id_token": token})


@pytest.fixture
def provider() -> Iterator[type[Provider]]:
    class Mine(Provider):
        claims: ClassVar[dict] = {}
        codes: ClassVar[dict] = {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    Mine.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Mine
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def person(context, provider) -> Iterator[TestClient]:
    oidc = OIDCSettings(issuer=provider.address, client_id="titer", roles={"rad": "radiologist"})
    with TestClient(make_app(with_web(context, oidc=oidc)), follow_redirects=False) as client:
        yield client


def through(person: TestClient, provider: type[Provider], **changed: str):
    """Go to the provider, log in there, and come back with a code."""
    target = urlsplit(person.get("/login/oidc").headers["location"])
    asked = {name: values[0] for name, values in parse_qs(target.query).items()}
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    provider.codes["code-1"] = asked
    back = {"state": asked["state"], "code": "code-1", **changed}
    return person.get(f"{urlsplit(asked['redirect_uri']).path}?{urlencode(back)}")


def test_a_login_by_the_provider_gives_the_mapped_role(person, provider, events) -> None:
    answer = through(person, provider)
    assert answer.status_code == 200
    assert re.search(r'http-equiv="refresh" content="0; url=/queue"', answer.text)
    assert person.get("/queue").status_code == 200
    assert "oidc:s-1" in person.get("/account").text
    assert any("oidc:s-1" in str(one) and one["type"]["code"] == "110114" for one in events())


@pytest.mark.parametrize(
    "claims",
    [{"nonce": "other"}, {"aud": "other"}, {"iss": "https://other"}, {"exp": 1}, {"roles": ["boss"]}, {"roles": []}],
)
def test_a_token_that_is_not_for_this_login_is_refused(person, provider, claims) -> None:
    provider.claims.update(claims)
    assert through(person, provider).status_code == 401
    assert person.get("/queue").status_code == 401


def test_a_token_signed_by_another_key_is_refused(person, provider) -> None:
    other, original = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"}), Provider.do_GET

    def published(self) -> None:
        if self.path == "/keys":
            self._answer({"keys": [other.as_dict(private=False)]})
        else:
            original(self)

    provider.do_GET = published
    assert through(person, provider).status_code == 401


@pytest.mark.parametrize("changed", [{"state": "forged"}, {"code": "stolen"}])
def test_an_answer_that_was_not_asked_for_is_refused(person, provider, changed) -> None:
    assert through(person, provider, **changed).status_code == 401


def test_an_answer_serves_once(person, provider) -> None:
    target = urlsplit(person.get("/login/oidc").headers["location"])
    asked = {name: values[0] for name, values in parse_qs(target.query).items()}
    provider.codes["code-1"] = asked
    where = f"{urlsplit(asked['redirect_uri']).path}?{urlencode({'state': asked['state'], 'code': 'code-1'})}"
    cookie = person.cookies["titer_oidc"]
    assert person.get(where).status_code == 200
    person.cookies.set("titer_oidc", cookie, path="/login")
    provider.codes["code-1"] = asked
    assert person.get(where).status_code == 401


def test_a_provider_over_plain_http_elsewhere_is_refused(context) -> None:
    oidc = OIDCSettings(issuer="http://idp.example", client_id="titer", roles={"rad": "radiologist"})
    with pytest.raises(SpecError, match=r"web.oidc.issuer = 'http://idp.example'"):
        make_app(with_web(context, oidc=oidc))
