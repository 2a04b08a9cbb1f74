"""Security headers of every answer, and the size that a request may have: plain ASGI, so that bodies stream."""

from __future__ import annotations

from typing import Any

Scope = Any
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",  # with no-referrer browsers send `Origin: null` for our own forms
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=(), payment=()",
}
_HSTS = (b"strict-transport-security", b"max-age=31536000")
FORM_BYTES = 64 << 10
"""A form of the pages is smaller than this."""


class TooLarge(Exception):  # noqa: N818 - says what happened
    """A body went past its cap while it was read."""


class SecurityHeaders:
    """Adds the headers; answers are not stored by the browser unless their route says otherwise."""

    def __init__(self, app: Any, *, tls: bool) -> None:
        """Wrap an ASGI app."""
        self.app = app
        self.fixed = {**_ALWAYS, **({_HSTS[0]: _HSTS[1]} if tls else {})}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Run the app."""

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = [pair for pair in message.get("headers", []) if pair[0].lower() not in self.fixed]
                if not any(name.lower() == b"cache-control" for name, _ in given):
                    given.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*given, *self.fixed.items()]}
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


class BodyCap:
    """Answers 413 to a body that is longer than allowed, by its header or while it comes."""

    def __init__(self, app: Any, *, upload: int) -> None:
        """Wrap an ASGI app; `upload` is the most bytes of anything that is no form."""
        self.app, self.upload = app, upload

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Run the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")
        most, taken, begun = (FORM_BYTES if form else self.upload), 0, False
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > most:
            await _refuse(send)
            return

        async def receiving() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise TooLarge
            return message

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        except TooLarge:
            if not begun:
                await _refuse(send)


async def _refuse(send: Any) -> None:
    body = b'{"detail": "the body is too large"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
