"""A tiny server of the Open Inference Protocol on loopback, which can be told to fail in every way."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import Tensor

ENTRY, EXIT = "image", "score"


@dataclass(frozen=True)
class Reply:
    """What is sent in place of the good answer; `hang` seconds pass first, and before each of `drips`."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    hang: float = 0.0
    drips: int = 0
    drop: bool = False


def tensor_reply(data: Any, shape: list[int], name: str = EXIT, datatype: str = "FP32") -> Reply:
    """Return a reply with one output tensor."""
    output = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    return Reply(body=json.dumps({"model_name": "net", "outputs": [output]}).encode())


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error here."""


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    content: Any


@dataclass
class InferenceServer:
    """Serves `answer`, from rows [N, ...] to scores [N, K], as the model `net`; use as a context manager.

    `replies` go out first, one an inference request (None is the good answer), then `always`, where it is set.
    `others` replace the answers of other paths.
    """

    answer: Callable[[Tensor], Tensor]
    replies: list[Reply | None] = field(default_factory=list)
    always: Reply | None = None
    others: dict[str, Reply] = field(default_factory=dict)
    datatype: str = "FP32"
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> InferenceServer:
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def inferences(self) -> list[Asked]:
        return [one for one in self.asked if one.path.endswith("/infer")]

    @property
    def rows(self) -> int:
        return sum(one.content["inputs"][0]["shape"][0] for one in self.inferences)

    def reply(self, asked: Asked) -> Reply:
        """Return what goes out for a request."""
        if asked.path in self.others:
            return self.others[asked.path]
        if asked.path.endswith("/infer"):
            scripted = self.replies.pop(0) if self.replies else self.always
            return scripted or self._scores(asked.content["inputs"][0])
        if asked.path == "/v2/health/ready":
            return Reply()
        if asked.path.startswith("/v2/models/net"):
            return Reply(body=json.dumps(self._metadata()).encode())
        return Reply(status=404, body=b'{"error": "no such path"}')

    def _metadata(self) -> dict[str, Any]:
        entry = {"name": ENTRY, "datatype": self.datatype, "shape": [-1, -1]}
        return {
            "name": "net",
            "versions": ["1"],
            "platform": "test",
            "inputs": [entry],
            "outputs": [{"name": EXIT, "datatype": "FP32", "shape": [-1, 2]}],
        }

    def _scores(self, sent: dict[str, Any]) -> Reply:
        rows = torch.from_numpy(np.array(sent["data"], dtype=np.float32).reshape(sent["shape"]))
        with torch.no_grad():
            scores = self.answer(rows)
        datatype = "FP32" if scores.is_floating_point() else "INT64"
        return tensor_reply(scores.flatten().tolist(), list(scores.shape), datatype=datatype)


def _handler(server: InferenceServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, content: Any) -> None:
            asked = Asked(self.command, self.path, dict(self.headers), content)
            server.asked.append(asked)
            server.connections.add(self.client_address)
            reply = server.reply(asked)
            if server.ended.wait(reply.hang) and reply.hang:
                return
            if reply.drop:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + reply.drips))
            self.end_headers()
            self.wfile.write(reply.body)
            for _ in range(reply.drips):
                if server.ended.wait(0.1):
                    return
                self.wfile.write(b" ")

    return Handler
