"""Objects come over HTTP as they come by C-STORE, and reads are passed on and accounted for."""

import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import uvicorn
from dicom_peers import Raw, body, slice_of
from dicomweb_client.api import DICOMwebClient
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from titer.guard.receive.dicomweb import router
from titer.guard.store.tables import audit, objects

TYPE = 'multipart/related; type="application/dicom"; boundary=cut'


class Site:
    """An HTTP server in a thread, on a free port."""

    def __init__(self, app: FastAPI) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=[self.socket]))
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.socket.close()


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], Site]]:
    sites: list[Site] = []

    def make(app: FastAPI) -> Site:
        sites.append(Site(app))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()


def _require(permission: str) -> Callable[[Request], SimpleNamespace]:
    def check(request: Request) -> SimpleNamespace:
        if request.headers.get("x-may", permission) != permission:
            raise HTTPException(403)
        return SimpleNamespace(name="scanner")

    return check


@pytest.fixture
def web(guard, serve) -> Site:
    app = FastAPI()
    app.include_router(router(guard.context, _require))
    return serve(app)


def _file(ds, preamble: bytes = bytes(128)) -> bytes:
    stream = BytesIO()
    ds.preamble = preamble
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _multipart(*files: bytes) -> bytes:
    parts = b"".join(b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files)
    return parts + b"--cut--\r\n"


def _post(site: Site, content: bytes, path: str = "/dicomweb/studies", **headers: str) -> httpx.Response:
    given = {"content-type": TYPE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(site.url + path, content=content, headers=given, timeout=30)


def test_dicomweb_client_stores_a_series(guard, web) -> None:
    slices = [slice_of(number, side=512) for number in range(3)]
    answer = DICOMwebClient(web.url + "/dicomweb").store_instances(slices)
    assert len(answer.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in answer
    rows = guard.rows(objects)
    assert {row.calling_ae for row in rows} == {"scanner"}
    assert all(any(Path(row.path).read_bytes().endswith(body(one)) for one in slices) for row in rows)


def test_an_object_is_the_same_over_http_and_over_dicom(guard, web) -> None:
    one = slice_of(1)
    assert _post(web, _multipart(_file(one, b"MZ" + bytes(126)))).status_code == 200
    with Raw(guard.port) as peer:
        peer.associate()
        assert peer.store(one.SOPInstanceUID, body(one)) == (0, "")
    [row] = guard.rows(objects)
    assert Path(row.path).read_bytes()[:132] == bytes(128) + b"DICM"


def test_what_fails_is_named_with_its_reason(guard, web) -> None:
    good, conflict, wrong = slice_of(1), slice_of(1, seed=3), slice_of(2)
    wrong.Rows = 640
    answer = _post(web, _multipart(_file(good), _file(conflict), _file(wrong), b"GIF89a" + bytes(200)))
    assert answer.status_code == 202
    told = answer.json()
    assert [one["00081155"]["Value"] for one in told["00081199"]["Value"]] == [[good.SOPInstanceUID]]
    assert [one["00081197"]["Value"] for one in told["00081198"]["Value"]] == [[0xA779], [0xC000]]
    assert [one["00081197"]["Value"] for one in told["0008119A"]["Value"]] == [[0xC000]]
    assert len(guard.rows(objects)) == 2
    assert len(guard.files()) == 1


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"content_type": "application/dicom+json"}, 415),
        (b"", {}, 400),
        (b"--cut--\r\n", {}, 400),
        (b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + bytes(3000), {}, 400),
        (b"--cut\r\n" + b"a" * 40_000, {}, 400),
        (b"--cutter\r\n", {}, 400),
        (_multipart(b"no file"), {}, 409),
        (b"x", {"content_type": 'multipart/related; type="application/dicom"; boundary="a\\"b"'}, 400),
    ],
)
def test_a_broken_request_is_refused_and_leaves_nothing(guard, web, content: bytes, headers, status: int) -> None:
    assert _post(web, content, **headers).status_code == status
    assert guard.files() == guard.rows(objects) == []


def test_a_study_that_is_named_holds_its_own_objects_only(web) -> None:
    content = _multipart(_file(slice_of(1)))
    assert _post(web, content, "/dicomweb/studies/1.2.3").status_code == 409
    assert _post(web, content, "/dicomweb/studies/1.2.x").status_code == 400
    assert _post(web, content, f"/dicomweb/studies/{slice_of(1).StudyInstanceUID}").status_code == 200


def test_without_the_permission_nothing_is_stored_or_read(guard, web) -> None:
    assert _post(web, _multipart(_file(slice_of(1))), x_may="query").status_code == 403
    assert httpx.get(web.url + "/dicomweb/studies", headers={"x-may": "store"}).status_code == 403
    assert guard.rows(objects) == []


def test_g6_a_request_that_is_too_long_is_cut_off(start, serve) -> None:
    guard = start("[web]\nmax_upload_mib = 1\n")
    app = FastAPI()
    app.include_router(router(guard.context, _require))
    site = serve(app)
    long = _multipart(_file(slice_of(1, side=1024)))

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(long), 65536):
            yield long[at : at + 65536]

    assert _post(site, long).status_code == 413
    chunked = httpx.post(site.url + "/dicomweb/studies", content=pieces(), headers={"content-type": TYPE}, timeout=30)
    assert chunked.status_code == 413
    assert guard.files() == guard.rows(objects) == []


def _pacs() -> FastAPI:
    app = FastAPI()

    @app.get("/dicom-web/{path:path}")
    def answer(path: str, request: Request) -> Response:
        if path == "studies/1.2.3":
            return Response(b"x" * 300_000, headers={"content-type": request.headers["accept"], "x-inside": "secret"})
        if path == "series":
            return Response(status_code=307, headers={"location": "http://127.0.0.1:1/"})
        return JSONResponse([{"path": path, "query": str(request.query_params)}], media_type="application/dicom+json")

    return app


@pytest.fixture
def behind(start, serve) -> tuple[object, Site]:
    """A guard in front of a DICOMweb server."""
    pacs = serve(_pacs())
    named = f'[[destinations]]\nname = "pacs"\nkind = "dicomweb"\naddress = "{pacs.url}/dicom-web/"\n'
    guard = start(named)
    app = FastAPI()
    app.include_router(router(guard.context, _require))
    return guard, serve(app)


def test_a_query_is_passed_on_and_accounted_for_without_the_patient(behind) -> None:
    guard, site = behind
    answer = httpx.get(site.url + "/dicomweb/studies", params={"PatientName": "Doe"})
    assert answer.json() == [{"path": "studies", "query": "PatientName=Doe"}]
    [row] = guard.rows(audit)
    assert "110112" in row.event
    assert "scanner" in row.event
    assert "Doe" not in row.event


def test_g5_a_read_is_streamed_and_is_one_audit_row(behind) -> None:
    guard, site = behind
    answer = httpx.get(site.url + "/dicomweb/studies/1.2.3", headers={"accept": "multipart/related"})
    assert (answer.content, answer.headers["content-type"]) == (b"x" * 300_000, "multipart/related")
    assert "x-inside" not in answer.headers
    [row] = guard.rows(audit)
    assert "110103" in row.event


@pytest.mark.parametrize(
    "path", ["../system", "studies/abc", "studies/1.2/../../tools", "instances/1.2/file", "studies%2f"]
)
def test_no_other_path_reaches_the_pacs(behind, path: str) -> None:
    guard, site = behind
    assert httpx.get(f"{site.url}/dicomweb/{path}").status_code == 404
    assert guard.rows(audit) == []


def test_a_pacs_that_is_away_or_sends_elsewhere_is_told_as_such(behind, start, serve) -> None:
    _guard, site = behind
    assert httpx.get(site.url + "/dicomweb/series").status_code == 502
    guard = start('[[destinations]]\nname = "pacs"\nkind = "dicomweb"\naddress = "http://127.0.0.1:9"\n')
    app = FastAPI()
    app.include_router(router(guard.context, _require))
    assert httpx.get(serve(app).url + "/dicomweb/studies").status_code == 502
