"""DICOMweb (PS3.18): STOW-RS taken in, QIDO-RS and WADO-RS passed on to the PACS behind the guard."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from titer.guard.audit import chain
from titer.guard.audit.events import Kind, audit_event
from titer.guard.checks.light import valid_uid
from titer.guard.context import Context
from titer.guard.keys import read
from titer.guard.receive import multipart, stow
from titer.guard.receive.intake import Intake, Sender
from titer.guard.receive.transport import client_context
from titer.guard.settings import DestinationSettings
from titer.guard.store.journal import NotStored

PREFIX = "/dicomweb"
STORE, QUERY = "store", "query"
"""Permissions of the table of roles."""
_JSON = "application/dicom+json"
_MiB = 1 << 20
_UID = r"[0-9.]{1,64}"
_DETAIL = r"metadata|rendered|thumbnail|bulkdata(?:/[A-Za-z0-9_.-]{1,64}){0,8}"
_READ = re.compile(
    rf"studies(?:/{_UID}(?:/(?:{_DETAIL}|series|instances"
    rf"|series/{_UID}(?:/(?:{_DETAIL}|instances"
    rf"|instances/{_UID}(?:/(?:{_DETAIL}|frames/[0-9]{{1,9}}(?:,[0-9]{{1,9}}){{0,999}}(?:/(?:rendered|thumbnail))?))?"
    rf"))?))?)?|series|instances"
)
"""Paths of QIDO-RS and WADO-RS (PS3.18, tables 10.4.1-1 and 10.6.1-2); nothing else is passed on."""
_PASSED = ("content-type", "content-length", "content-location", "warning")
Require = Callable[[str], Callable[..., Any]]


def router(context: Context, require: Require) -> APIRouter:
    """Return the routes under /dicomweb.

    Args:
        context: of the guard.
        require: makes the dependency that lets a request pass that has a permission, and gives its account.
    """
    service = _Service(context)
    made = APIRouter(prefix=PREFIX, tags=["DICOMweb"])

    @made.post("/studies", summary="STOW-RS: store objects")
    async def store(request: Request, account: Any = Depends(require(STORE))) -> Response:  # noqa: B008
        return await service.store(request, account.name, None)

    @made.post("/studies/{study}", summary="STOW-RS: store objects of one study")
    async def store_study(request: Request, study: str, account: Any = Depends(require(STORE))) -> Response:  # noqa: B008
        return await service.store(request, account.name, study)

    @made.get("/{path:path}", summary="QIDO-RS and WADO-RS, from the PACS")
    async def look_up(request: Request, path: str, account: Any = Depends(require(QUERY))) -> Response:  # noqa: B008
        return await service.look_up(request, account.name, path)

    return made


class _Service:
    """What the routes do."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._intake = Intake(context)
        self._most = context.settings.web.max_upload_mib * _MiB
        found = [one for one in context.settings.destinations if one.kind == "dicomweb"]
        self._pacs = _PACS(context, found[0]) if found else None

    async def store(self, request: Request, account: str, study: str | None) -> Response:
        if study is not None and not valid_uid(study):
            return _said(400, "the study is no UID")
        try:
            boundary = multipart.boundary(request.headers.get("content-type", ""), stow.DICOM)
            if boundary is None:
                return _said(415, "only multipart/related; type=application/dicom is stored")
            if int(request.headers.get("content-length") or 0) > self._most:
                return _said(413, "the request is too long")
            sender = Sender(name=account, address=request.client.host if request.client else "")
            outcome = await stow.store(request.stream(), boundary, self._intake, sender, study, self._most)
        except multipart.Garbled as error:
            return _said(400, str(error))
        except ValueError:
            return _said(400, "Content-Length is no number")
        except stow.TooMuch:
            return _said(413, "the request is too long")
        url = f"{request.base_url}{PREFIX[1:]}/studies" + (f"/{study}" if study else "")
        return JSONResponse(outcome.dataset(url), outcome.status, media_type=_JSON)

    async def look_up(self, request: Request, account: str, path: str) -> Response:
        """Pass a read on; its audit row is written before the first byte is answered."""
        if self._pacs is None:
            return _said(404, "no destination of kind dicomweb is set")
        if not _READ.fullmatch(path):
            return _said(404, "no path of QIDO-RS or WADO-RS")
        try:
            await asyncio.to_thread(self._note, account, path, request.client.host if request.client else "")
        except NotStored:
            return _said(503, "the audit log does not take a row: nothing is read")
        return await self._pacs.get(path, request.url.query, request.headers.get("accept", "*/*"))

    def _note(self, account: str, path: str, address: str) -> None:
        at = self._context.clock()
        query = path.rsplit("/", 1)[-1] in ("studies", "series", "instances")
        event = audit_event(
            Kind.QUERY if query else Kind.ACCESSED,
            action="E" if query else "R",
            agent=account,
            at=at,
            what={"DICOMweb": path},
            network=address,
        )
        self._context.journal.write(partial(chain.append, event=event, at=at))


class _PACS:
    """The server that reads are passed on to."""

    def __init__(self, context: Context, destination: DestinationSettings) -> None:
        self._base = destination.address.rstrip("/")
        self._seconds = destination.timeout_seconds
        self._headers: dict[str, str] = {}
        if destination.secret_file is not None:
            secret = read(context.home.root / destination.secret_file).strip().decode("ascii", "replace")
            self._headers["Authorization"] = f"Bearer {secret}"
        self._verify: ssl.SSLContext | bool = (
            client_context(destination.tls, context.home.root, destination.name) if destination.tls else True
        )

    async def get(self, path: str, query: str, accept: str) -> Response:
        client = httpx.AsyncClient(timeout=self._seconds, verify=self._verify, trust_env=False, follow_redirects=False)
        url = f"{self._base}/{path}" + (f"?{query}" if query else "")
        try:
            asked = client.build_request("GET", url, headers={**self._headers, "Accept": accept})
            answer = await client.send(asked, stream=True)
        except httpx.HTTPError as error:
            await client.aclose()
            return _said(504 if isinstance(error, httpx.TimeoutException) else 502, "the PACS does not answer")
        if answer.is_redirect or answer.status_code in (401, 403):  # between guard and PACS: not the reader's business
            await answer.aclose()
            await client.aclose()
            return _said(502, f"the PACS answered {answer.status_code}")
        headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
        if "content-encoding" in answer.headers:
            headers.pop("content-length", None)  # what is passed on is decoded
        return StreamingResponse(_streamed(client, answer), answer.status_code, headers)


async def _streamed(client: httpx.AsyncClient, answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for block in answer.aiter_bytes():
            yield block
    finally:
        await answer.aclose()
        await client.aclose()


def _said(status: int, words: str) -> Response:
    return JSONResponse({"detail": words}, status)
