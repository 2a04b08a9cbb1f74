"""The part that serves the pages: uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.web.app import MakeRouter, make_app

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


class Web:
    """Pages, interfaces, metrics and health over HTTP or HTTPS."""

    name = "web"

    def __init__(
        self,
        context: Context,
        *,
        app: Any = None,
        listener: socket.socket | None = None,
        others: Sequence[MakeRouter] = (),
    ) -> None:
        """Make the application.

        Args:
            context: of the guard.
            app: an ASGI application in place of the guard's.
            listener: a bound socket in place of the settings' host and port.
            others: routers of other parts.
        """
        self._context, self._listener = context, listener
        self._app = app or make_app(context, others=others)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen; SpecError where the port is in use or a certificate cannot be read."""
        listener = self._listener or self._bound()
        config = self._configured()
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="web", daemon=True)
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_SECONDS / 0.02)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.02)
        if not self._server.started:
            raise SpecError("the web server did not start: see the log")

    def stop(self) -> None:
        """Answer what is asked, then end."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join()

    def trouble(self) -> str | None:
        """Say whether the thread has ended."""
        running = self._thread is not None and self._thread.is_alive()
        return None if running else "the web server does not run"

    def _bound(self) -> socket.socket:
        web = self._context.settings.web
        family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((web.host, web.port))
        except OSError as error:
            listener.close()
            raise SpecError(f"web.host, web.port = {web.host}:{web.port}: {error.strerror}") from None
        return listener

    def _configured(self) -> uvicorn.Config:
        tls = self._context.settings.web.tls
        root = self._context.home.root
        config = uvicorn.Config(
            self._app,
            access_log=False,  # addresses hold what people typed; the application logs routes
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(_STOP_SECONDS / 2),
            lifespan="off",
            ws="none",
            ssl_certfile=root / tls.certificate if tls else None,
            ssl_keyfile=str(root / tls.key) if tls else None,
            ssl_ca_certs=str(root / tls.authorities) if tls else None,
            # A browser without a certificate may log in by password; one that is shown has to be of the authorities.
            ssl_cert_reqs=ssl.CERT_OPTIONAL if tls else ssl.CERT_NONE,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise SpecError(f"web.tls: a certificate or key cannot be read: {error}") from None
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        return config
