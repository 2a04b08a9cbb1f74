"""What every destination over HTTP shares: a client that follows nowhere, and what an answer means."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Iterable, Mapping
from urllib.parse import urlsplit

import httpx

from titer.core.errors import SpecError
from titer.guard.deliver.sender import Refused, Unreachable
from titer.guard.deliver.tls import client_context
from titer.guard.home import Home
from titer.guard.keys import read
from titer.guard.settings import DestinationSettings

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LATER = (408, 425, 429)
_LONGEST_ANSWER = 1 << 20
Content = bytes | Iterable[bytes] | AsyncIterable[bytes]


class Client:
    """A connection to one destination, kept open; redirects are not followed, and no proxy is used by surprise."""

    def __init__(self, home: Home, destination: DestinationSettings, *, bearer: bool = True) -> None:
        """Read the secret, and check that it does not travel in the clear.

        Raises:
            SpecError: no http or https URL, or a secret over http to another machine.
        """
        where = f"destinations.{destination.name}.address = {destination.address!r}"
        parsed = urlsplit(destination.address)
        if parsed.scheme not in ("http", "https") or not parsed.hostname:
            raise SpecError(f"{where} is no http or https URL")
        if parsed.scheme == "http" and parsed.hostname not in _LOOPBACK:
            raise SpecError(f"{where}: over http only loopback is allowed, other machines need https")
        self.secret = b"" if destination.secret_file is None else read(home.root / destination.secret_file).strip()
        if destination.secret_file is not None and not self.secret:
            raise SpecError(f"destinations.{destination.name}.secret_file = {destination.secret_file} is empty")
        headers = (
            {"Authorization": f"Bearer {self.secret.decode('ascii', 'replace')}"} if bearer and self.secret else {}
        )
        self._seconds = destination.timeout_seconds
        self._base = destination.address.rstrip("/")
        self._client = httpx.Client(
            headers=headers,
            timeout=destination.timeout_seconds,
            verify=client_context(home, destination) or True,
            trust_env=False,
            follow_redirects=False,
        )

    def send(self, method: str, path: str, content: Content, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send, and return status and body; what means failure for every server is raised.

        Of the body it is the first MiB, and what came within the destination's time-out.

        Raises:
            Unreachable: no connection, no answer in time, or a status that says later (408, 425, 429, 5xx).
        """
        try:
            with self._client.stream(method, self._base + path, content=content, headers=headers) as answer:
                body, end = b"", time.monotonic() + self._seconds
                for block in answer.iter_bytes():
                    body += block
                    if len(body) > _LONGEST_ANSWER or time.monotonic() > end:
                        break
        except httpx.HTTPError as error:
            raise Unreachable(f"the server cannot be reached or did not answer: {type(error).__name__}") from None
        status = answer.status_code
        if status in _LATER or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"HTTP status {status}", _asked(answer.headers.get("Retry-After", "")))
        return status, body

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


def accepted(status: int) -> None:
    """Raise `Refused` unless a status means success."""
    if not httpx.codes.is_success(status):
        raise Refused(f"HTTP status {status}")


def _asked(retry_after: str) -> float | None:
    return float(retry_after) if retry_after.isdigit() else None
