"""The settings of a remote model: the `endpoint` table of a plan, checked without asking the server, and its secret."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from titer.core.errors import SpecError
from titer.core.registry import UNKNOWN_KEY, explain

Datatype = Literal["FP32", "FP64", "UINT8", "INT16", "INT32", "INT64"]

_BASE = "http://HOST:PORT or https://HOST:PORT, a path may follow"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_SECRET = re.compile(r"token|secret|passw|key|auth|bearer|credential|cookie|header", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Endpoint:
    """Where a model answers by the Open Inference Protocol (KServe V2, HTTP with JSON), and how it is asked.

    `input` and `output_name` are tensor names; without them the server's metadata gives its only ones. `access` says
    what the server answers: `scores` [N, K], or a `decision`: a class index for each row, or scores of which only the
    largest counts. `timeout` is in seconds, for one try. A request holds at most `batch_size` rows. `max_queries` is
    the number of rows that may be sent for one defended model of one trial. The bearer token is read from the
    environment variable `token_env` or from `token_file`; `verify` is a file of certificates to trust.
    """

    url: str
    model: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)] | None = None
    input: str | None = None
    output_name: str | None = None
    datatype: Datatype = "FP32"
    access: Literal["scores", "decision"] = "scores"
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 64
    max_queries: Annotated[int, Field(ge=1)] | None = None
    token_env: str | None = None
    token_file: str | None = None
    verify: str | None = None


def read_endpoint(settings: Mapping[str, Any], where: str) -> Endpoint:
    """Check an `endpoint` table and return it.

    Raises:
        SpecError: unknown or missing keys, values out of their limits, a URL that is none or that holds a secret, or a
            token that would travel in the clear. No message repeats a secret.
    """
    allowed = tuple(one.name for one in fields(Endpoint))
    try:
        endpoint = TypeAdapter(Endpoint).validate_python(dict(settings))
    except ValidationError as error:
        raise SpecError("; ".join(_told(where, dict(one), allowed) for one in error.errors())) from None
    problems = [*_wrong_url(endpoint, where), *_wrong_secret(endpoint, where)]
    if problems:
        raise SpecError("; ".join(problems))
    return endpoint


def _told(where: str, error: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    key = str(error["loc"][-1])
    if error["type"] in UNKNOWN_KEY and _SECRET.search(key):
        return f"{where}.{key} is not allowed: no plan holds a secret; name it by token_env or token_file"
    return explain(where, error, allowed)


def _wrong_url(endpoint: Endpoint, where: str) -> list[str]:
    url = _parsed(endpoint.url)
    if url is not None and (url.auth or url.query or url.fragment):
        masked = f"{url.scheme}://***@{url.netloc}" if url.auth else f"{url.scheme}://{url.netloc}{url.path or ''}?***"
        return [
            f"{where}.url = {masked!r} is not allowed: user, password and query may be secrets, and no plan holds one; "
            f"allowed is {_BASE}, with the secret in token_env or token_file"
        ]
    if url is None or url.scheme not in ("http", "https") or not url.host:
        shown = re.sub(r"^.*@", "***@", endpoint.url).partition("?")[0]
        return [f"{where}.url = {shown!r} is not allowed: allowed is {_BASE}"]
    if endpoint.verify is not None and url.scheme == "http":
        return [f"{where}.verify = {endpoint.verify!r} is not allowed with http: only https has certificates"]
    if (endpoint.token_env or endpoint.token_file) and url.scheme == "http" and url.host not in _LOOPBACK:
        return [
            f"{where}.url = {endpoint.url!r} is not allowed with a token: anybody on the way could read it; use https"
        ]
    return []


def _parsed(text: str) -> Url | None:
    if not _PRINTABLE.fullmatch(text) or "\\" in text:
        return None
    try:
        return parse_url(text)
    except LocationParseError:
        return None


def _wrong_secret(endpoint: Endpoint, where: str) -> list[str]:
    if endpoint.token_env is not None and endpoint.token_file is not None:
        return [f"{where} has both token_env and token_file: allowed is one of them"]
    if endpoint.token_env is not None and not _VARIABLE.fullmatch(endpoint.token_env):
        return [f"{where}.token_env is not the name of an environment variable; the token itself stands in no plan"]
    return []


def read_token(endpoint: Endpoint, folder: Path, where: str) -> str | None:
    """Return the bearer token from the environment or the file (relative to `folder`), None where none is asked for.

    Raises:
        SpecError: the variable is not set, there is no such file, or what is there is no token.
    """
    if endpoint.token_env is not None:
        source, token = f"{where}.token_env = {endpoint.token_env!r}", os.environ.get(endpoint.token_env)
        if token is None:
            raise SpecError(f"{source}: this environment variable is not set")
    elif endpoint.token_file is not None:
        source, token = f"{where}.token_file = {endpoint.token_file!r}", _content(endpoint.token_file, folder, where)
    else:
        return None
    if not _PRINTABLE.fullmatch(token.strip()):
        raise SpecError(f"{source} holds no token: allowed is one word of printable ASCII characters")
    return token.strip()


def _content(name: str, folder: Path, where: str) -> str:
    try:
        return (folder / name).read_text(encoding="ascii")
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise SpecError(f"{where}.token_file = {name!r} cannot be read: {error.strerror}") from None


def trusted(endpoint: Endpoint, folder: Path, where: str) -> ssl.SSLContext:
    """Return the certificates that the server must be known by: the system's, or those of `verify` alone.

    Raises:
        SpecError: `verify` is no file of certificates.
    """
    try:
        return ssl.create_default_context(cafile=None if endpoint.verify is None else str(folder / endpoint.verify))
    except OSError as error:
        raise SpecError(
            f"{where}.verify = {endpoint.verify!r} is not a file of certificates (PEM): {error.strerror or error}"
        ) from None
