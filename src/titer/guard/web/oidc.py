"""Login by an identity provider: OpenID Connect Core 1.0, code flow with PKCE (RFC 7636)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from titer.core.errors import SpecError, TiterError
from titer.guard.keys import read
from titer.guard.settings import OIDCSettings

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"]
"""Signatures of identity tokens that are taken: never `none`, never a shared secret."""
_SECONDS = 600.0
_MOST = 1000
_TIMEOUT = 10.0
_LEEWAY = 60


class NotVouched(TiterError):  # noqa: N818 - says what happened
    """The identity provider did not vouch for this login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A login that waits for the provider's answer."""

    verifier: str
    nonce: str
    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """Whom the provider vouches for, and the role that the settings give."""

    subject: str
    role: str


class Provider:
    """An OpenID provider as the settings name it."""

    def __init__(self, settings: OIDCSettings) -> None:
        """Remember the settings; nothing is asked yet."""
        self.settings = settings
        self._begun: dict[str, Begun] = {}
        self._lock = threading.Lock()

    def begin(self, callback: str, at: float) -> tuple[str, str]:
        """Return the address to send the browser to, and the state that its answer must bring."""
        state, begun = secrets.token_urlsafe(32), _begun(at)
        with self._lock:
            self._begun = {k: v for k, v in self._begun.items() if v.ends > at}
            if len(self._begun) >= _MOST:
                raise NotVouched("too many logins wait for the identity provider")
            self._begun[state] = begun
        with self._client(callback) as client:
            address, _ = client.create_authorization_url(
                self._discovered()["authorization_endpoint"],
                state=state,
                nonce=begun.nonce,
                code_challenge=create_s256_code_challenge(begun.verifier),
                code_challenge_method="S256",
            )
        return str(address), state

    def finish(self, callback: str, state: str, code: str, at: float) -> Vouched:
        """Exchange the code, check the identity token, and return whom it names.

        Raises:
            NotVouched: a state that is unknown, used or old, a wrong answer or token, or a role that is not mapped.
        """
        with self._lock:
            begun = self._begun.pop(state, None)
        if begun is None or begun.ends <= at:
            raise NotVouched("this login was not begun here, or took too long")
        try:
            found = self._discovered()
            with self._client(callback) as client:
                answer = client.fetch_token(found["token_endpoint"], code=code, code_verifier=begun.verifier)
            claims = self._claims(found, str(answer["id_token"]), begun.nonce, at)
        except (httpx.HTTPError, JoseError, KeyError, ValueError, TypeError) as error:
            raise NotVouched(f"the identity provider's answer is not valid ({type(error).__name__})") from None
        except Exception as error:  # noqa: BLE001 - the client raises its own family of errors
            raise NotVouched(f"the identity provider refused ({type(error).__name__})") from None
        return self._vouched(claims)

    def _client(self, callback: str) -> Any:
        given = self.settings
        secret = read(given.client_secret_file).decode().strip() if given.client_secret_file else None
        return OAuth2Client(
            client_id=given.client_id,
            client_secret=secret,
            scope=" ".join(given.scopes),
            redirect_uri=callback,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            timeout=_TIMEOUT,
        )

    def _discovered(self) -> Mapping[str, Any]:
        issuer = self.settings.issuer.rstrip("/")
        found: Mapping[str, Any] = _got(f"{issuer}/.well-known/openid-configuration")
        if str(found.get("issuer", "")).rstrip("/") != issuer:
            raise NotVouched("the identity provider names another issuer than the settings")
        return found

    def _claims(self, found: Mapping[str, Any], token: str, nonce: str, at: float) -> Mapping[str, Any]:
        keys = KeySet.import_key_set(_got(found["jwks_uri"]))
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(at),
            leeway=_LEEWAY,
            iss={"essential": True, "value": found["issuer"]},
            aud={"essential": True, "value": self.settings.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        registry.validate(claims)
        return claims

    def _vouched(self, claims: Mapping[str, Any]) -> Vouched:
        subject, given = claims.get(self.settings.name_claim), claims.get(self.settings.role_claim, [])
        if not isinstance(subject, str) or not subject:
            raise NotVouched(f"the identity provider sent no {self.settings.name_claim}")
        values = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        roles = [role for value, role in self.settings.roles.items() if value in values]
        if not roles:
            raise NotVouched("the identity provider gave no role that the settings map")
        return Vouched(subject=subject, role=roles[0])


def _begun(at: float) -> Begun:
    return Begun(verifier=secrets.token_urlsafe(48), nonce=secrets.token_urlsafe(24), ends=at + _SECONDS)


def _got(address: str) -> Any:
    try:
        answer = httpx.get(address, timeout=_TIMEOUT).raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError):
        raise NotVouched("the identity provider does not answer") from None


def checked(settings: OIDCSettings) -> OIDCSettings:
    """Return settings that can be trusted: tokens over plain HTTP are taken from this machine only."""
    address = httpx.URL(settings.issuer)
    if address.scheme != "https" and address.host not in ("127.0.0.1", "localhost", "::1"):
        raise SpecError(f"web.oidc.issuer = {settings.issuer!r}: allowed is https://")
    return settings
