"""The Open Inference Protocol (KServe V2, REST) with a verdict in every answer.

A request that is not PASS gets HTTP 200 with no outputs: the answer to "what does the model say" is that nobody may
know yet. `parameters` hold the verdict, its number and its reasons; a client that reads outputs alone fails loudly.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from math import prod
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from titer.core.errors import SpecError
from titer.guard.context import Context
from titer.guard.judge import contract
from titer.guard.judge.bundle import MANIFEST, InputPart, Pinned, read_bundle
from titer.guard.judge.conclude import Opinion, failed, opinion, verdict
from titer.guard.judge.layers import layers_of, level_of, noted
from titer.guard.judge.messages import Answer, Ask, Facts, WorkerFailed
from titer.guard.judge.pace import Pace, TooMuch
from titer.guard.judge.verdicts import BELL, write
from titer.guard.judge.workers import Workers, workers_of
from titer.guard.records import Outcome, Verdict
from titer.guard.settings import MiB, RouteSettings

Require = Callable[[str], Any]
API = "inference-api"
_MOST_REASONS = 20
_BYTES_A_VALUE = 32
"""A number in JSON with its digits, exponent, comma and blanks."""
_BYTES_BESIDE = 64 * 1024


def router(context: Context, require: Require) -> APIRouter:
    """Return the routes; `require(permission)` is a dependency that gives the account that asks."""
    routes = APIRouter(prefix="/v2", tags=["inference"])
    service = _Service(context)
    caller = require("infer")
    asking = Depends(caller)

    @routes.get("/health/live", dependencies=[Depends(require("public"))])
    def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready", dependencies=[Depends(require("public"))])
    def ready() -> dict[str, bool]:
        with workers_of(context) as workers:
            if workers.troubles():
                raise HTTPException(503, "a model does not answer")
        return {"ready": True}

    @routes.get("/models/{name}", dependencies=[asking])
    def model(name: str) -> dict[str, Any]:
        return contract.metadata(service.facts(name))

    @routes.get("/models/{name}/ready", dependencies=[asking])
    def model_ready(name: str) -> dict[str, Any]:
        service.facts(name, anew=True)
        return {"name": name, "ready": True}

    @routes.post("/models/{name}/infer")
    async def infer(name: str, request: Request, account: Any = asking) -> dict[str, Any]:
        body = await _body(request, await run_in_threadpool(service.most, name))
        return await run_in_threadpool(service.infer, name, body, _name_of(account))

    return routes


class _Service:
    """What the routes do, apart from HTTP's own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pace = Pace(context)
        self._read_at: dict[str, tuple[int, Facts]] = {}

    def facts(self, name: str, *, anew: bool = False) -> Facts:
        """Return what a bundle says of itself, worker or none; every file is checked where it changed, or `anew`."""
        with workers_of(self._context) as workers:
            self._known(workers, name)
        folder = self._context.home.models / name
        try:
            stamp = (folder / MANIFEST).stat().st_mtime_ns
            if anew or self._read_at.get(name, (0, None))[0] != stamp:
                self._read_at[name] = (stamp, _facts(name, read_bundle(folder)))
        except (SpecError, OSError):
            self._read_at.pop(name, None)
            raise HTTPException(503, f"model {name} is damaged") from None
        return self._read_at[name][1]

    def most(self, name: str) -> int:
        """Return how many bytes a request may have: what the longest one needs, and no more than the server takes."""
        values = int(prod(self.facts(name).input["shape"])) * self._context.settings.judge.batch
        return min(_BYTES_A_VALUE * values + _BYTES_BESIDE, self._context.settings.web.max_upload_mib * MiB)

    def infer(self, name: str, body: bytes, account: str) -> dict[str, Any]:
        """Judge a request, and answer it where it passes."""
        with workers_of(self._context) as workers:
            self._known(workers, name)
            request, rows = self._read(name, body)
            try:
                self._pace.take(account, name, len(rows))
            except TooMuch as reason:
                raise HTTPException(429, str(reason), {"Retry-After": str(reason.seconds)}) from None
            decided, answer, route = self._judged(workers, name, rows)
        number = self._context.journal.write(
            lambda connection: write(connection, decided, route=route, revision=0, at=self._context.clock())
        )
        self._context.bell.ring(BELL)
        return _response(name, request, decided, answer, number)

    def _known(self, workers: Workers, name: str) -> None:
        if name not in workers.names():
            raise HTTPException(404, "there is no such model")

    def _read(self, name: str, body: bytes) -> tuple[contract.InferenceRequest, Any]:
        shape = InputPart.model_validate(self.facts(name).input)
        try:
            request = contract.InferenceRequest.model_validate_json(body)
            return request, contract.rows(request, shape, self._context.settings.judge.batch)
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
            raise HTTPException(400, said) from None
        except (ValueError, RecursionError, OverflowError) as error:
            raise HTTPException(400, str(error)[:300] or "the request cannot be read") from None

    def _judged(self, workers: Workers, name: str, rows: Any) -> tuple[Verdict, Answer | None, str]:
        routes = self._context.settings.routes
        route = next((one for one in routes if one.model == name), RouteSettings(name=API, model=name))
        with self._context.engine.connect() as connection:
            level = level_of(connection, self._context.settings)
            layers = layers_of(connection, route, level)
        infer, detect = "model" in layers, "detectors" in layers
        said, answer, facts = Opinion(), None, None
        try:
            answer, facts = workers.worker(name).ask(Ask(rows=rows, infer=infer, watched=None if detect else ()))
            said = opinion(answer, facts, infer=infer, detect=detect)
        except (WorkerFailed, SpecError) as reason:
            said = Opinion(findings=(failed(str(reason)),))
        subject = str(uuid.uuid4())
        decided = verdict("request", subject, contract.digest(rows), facts, noted(route, layers, level), said)
        return decided, answer, route.name


def _facts(name: str, pinned: Pinned) -> Facts:
    bundle = pinned.bundle
    return Facts(
        name=name,
        model_digest=pinned.model_digest,
        bundle_version=pinned.version,
        classes=bundle.classes,
        output=bundle.output,
        detectors=tuple(one.label for one in bundle.detectors),
        input=bundle.input.model_dump(mode="json"),
    )


def _response(
    name: str, request: contract.InferenceRequest, decided: Verdict, answer: Answer | None, number: int
) -> dict[str, Any]:
    passed = decided.outcome is Outcome.PASS and answer is not None and decided.result is not None
    chances = [row for row in answer.probabilities if row is not None] if passed and answer is not None else []
    reasons = [one.reason for one in decided.findings if passed or one.outcome is not Outcome.PASS]
    parameters: dict[str, Any] = {
        "verdict": str(decided.outcome),
        "verdict_id": number,
        "subject": decided.subject,
        "input_sha256": decided.input_digest,
        "model_sha256": decided.model_digest,
        "reasons": reasons[:_MOST_REASONS],
    }
    response: dict[str, Any] = {
        "model_name": name,
        "model_version": decided.bundle_version,
        "outputs": [contract.output(chances)] if chances else [],
        "parameters": parameters,
    }
    return response | ({} if request.id is None else {"id": request.id})


async def _body(request: Request, most: int) -> bytes:
    """Read a body of at most so many bytes; the rest of a longer one is never read."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(413, f"more than {most} bytes")
        parts.append(part)
    return b"".join(parts)


def _name_of(account: Any) -> str:
    return str(getattr(account, "name", account))
