"""JSON over HTTP to one server: time-outs, retries with backoff, no redirects, and a secret that is never told."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ReadTimeoutError, SSLError

from titer.core.errors import TargetFailed

_AGAIN = frozenset({429, 502, 503, 504})
_BACKOFF = 0.5
_LONGEST_WAIT = 60.0
_LARGEST_ANSWER = 2**26
_PART = 2**16
_SHOWN = 160
_GIVEN_UP_AFTER = 3


@dataclass(slots=True)
class _Health:
    """How many requests in a row failed, and how the last one did."""

    failures: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A server at `base`; a request is tried 1 + `retries` times, each try for at most `timeout` seconds.

    Tried again are connections that fail or break, and answers 429, 502, 503 and 504, after the server's Retry-After
    (no longer than a minute) or an exponential backoff with jitter. A time-out is not: a server that hangs would hold
    every cell for several of them. After three requests in a row have failed the server is not asked again.
    """

    base: str
    timeout: float
    retries: int
    context: ssl.SSLContext = field(repr=False)
    token: str | None = field(default=None, repr=False)
    _health: _Health = field(default_factory=_Health, repr=False)
    _pool: urllib3.PoolManager = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pool = urllib3.PoolManager(num_pools=1, maxsize=1, ssl_context=self.context, retries=False)
        object.__setattr__(self, "_pool", pool)

    def get(self, path: str) -> bytes:
        """Return the body of the answer; see `post` for the errors."""
        return self._guarded("GET", path, None)

    def get_json(self, path: str) -> Any:
        """Return the answer's JSON; see `post` for the errors."""
        return self._parsed(path, self.get(path))

    def post(self, path: str, content: Any) -> Any:
        """Send JSON and return the answer's JSON.

        Raises:
            TargetFailed: the server cannot be reached, hangs, answers another status than 200, more than 64 MiB or no
                JSON; or three requests before this one failed.
        """
        body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        return self._parsed(path, self._guarded("POST", path, body))

    def fail(self, path: str, problem: str) -> TargetFailed:
        """Build the error for what is wrong with the answer of a path; the token is blotted out."""
        return TargetFailed(f"{self.base}{path} {self._blotted(problem)}")

    def _parsed(self, path: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self.fail(path, f"answered no JSON: {self._first_line(content)!r}") from None

    def _guarded(self, method: str, path: str, body: bytes | None) -> bytes:
        if self._health.failures >= _GIVEN_UP_AFTER:
            raise TargetFailed(
                f"{self._health.reason}; it is not asked again after {_GIVEN_UP_AFTER} failures in a row"
            )
        try:
            content = self._tried(method, path, body)
        except TargetFailed as failure:
            self._health.failures += 1
            self._health.reason = failure.reason
            raise
        self._health.failures = 0
        return content

    def _tried(self, method: str, path: str, body: bytes | None) -> bytes:
        patience = urllib3.Retry(
            total=self.retries,
            allowed_methods=None,
            backoff_factor=_BACKOFF,
            backoff_jitter=_BACKOFF,
            backoff_max=_LONGEST_WAIT,
        )
        while True:
            response, failure = None, None
            try:
                response, content = self._attempt(method, path, body)
            except ReadTimeoutError:
                raise self.fail(path, f"gave no answer within {self.timeout:g} s") from None
            except SSLError as error:
                raise self.fail(path, f"cannot be trusted: {_reason(error)}") from None
            except HTTPError as error:
                failure, problem = error, f"cannot be reached: {_reason(error)}"
            else:
                if response.status == 200:
                    return content
                problem = f"answered {response.status}{self._said(content)}"
                if response.status not in _AGAIN:
                    raise self.fail(path, problem)
            try:
                patience = patience.increment(method, path, response=response, error=failure)
            except MaxRetryError:
                tries = f" ({1 + self.retries} tries)" if self.retries else ""
                raise self.fail(path, f"{problem}{tries}") from None
            _wait(patience, response)

    def _attempt(self, method: str, path: str, body: bytes | None) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        deadline = time.monotonic() + self.timeout
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "titer"}
        headers |= {} if body is None else {"Content-Type": "application/json"}
        headers |= {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        response = self._pool.request(
            method, self.base + path, body=body, headers=headers, timeout=urllib3.Timeout(total=self.timeout),
            retries=False, redirect=False, preload_content=False, decode_content=False,
        )  # fmt: skip
        try:
            return response, self._body(path, response, deadline)
        except BaseException:
            response.close()
            raise
        finally:
            response.release_conn()

    def _body(self, path: str, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """Read the answer in parts, since a socket's time-out begins anew with each byte that drips in."""
        content = bytearray()
        while part := response.read1(_PART):
            content += part
            if len(content) > _LARGEST_ANSWER:
                raise self.fail(path, f"answered more than {_LARGEST_ANSWER // 2**20} MiB")
            if time.monotonic() > deadline:
                raise self.fail(path, f"gave no whole answer within {self.timeout:g} s")
        return bytes(content)

    def _said(self, content: bytes) -> str:
        """Return the `error` of a V2 answer, or the first line of any other."""
        try:
            told = self._blotted(str(json.loads(content)["error"]))[:_SHOWN]
        except (ValueError, KeyError, TypeError, RecursionError):
            told = self._first_line(content)
        return f" ({' '.join(told.split())})" if told else ""

    def _first_line(self, content: bytes) -> str:
        """Return the beginning of an answer; the token goes first, or a cut through it would leave a part."""
        return (self._blotted(content.decode("utf-8", "replace")).strip().splitlines() or [""])[0][:_SHOWN]

    def _blotted(self, text: str) -> str:
        return text if self.token is None else text.replace(self.token, "***")


def _wait(patience: urllib3.Retry, response: urllib3.BaseHTTPResponse | None) -> None:
    """Sleep as long as the server asks for, a minute at most, or as the backoff says."""
    try:
        asked = None if response is None else patience.get_retry_after(response)
    except InvalidHeader:
        asked = None
    time.sleep(min(asked if asked is not None else patience.get_backoff_time(), _LONGEST_WAIT))


def _reason(error: HTTPError) -> str:
    """Return why a connection failed, without the addresses of objects that urllib3 may print."""
    cause = error.__cause__ or next((one for one in error.args if isinstance(one, Exception)), None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).rpartition(": ")[2][:_SHOWN]
