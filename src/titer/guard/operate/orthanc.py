"""A real Orthanc on loopback, for the demo and the tests: its own folder, free ports, ended by its process id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from titer.core.errors import SpecError

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/local/share/orthanc/plugins"))
_DICOMWEB = "libOrthancDicomWeb.so"
PLUGINS_VARIABLE = "TITER_ORTHANC_PLUGINS"
"""Environment variable: another folder of Orthanc's plugins."""


def program() -> str:
    """Return where Orthanc stands; SpecError where it is not installed."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SpecError("Orthanc is not installed: apt-get install orthanc")
    return found


def end(process: subprocess.Popen[Any], seconds: float) -> None:
    """Ask a process to end, and kill it where it has not within `seconds`."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Orthanc:
    """An Orthanc that a program starts and stops; it keeps what it stores in `folder`."""

    def __init__(self, folder: Path, *, ae_title: str = "ORTHANC", peers: Sequence[str] = (), **options: Any) -> None:
        """Choose ports and write its settings.

        Args:
            folder: for its settings, database and log; made where it is not there.
            ae_title: its own title; it takes no other called title.
            peers: calling AE titles that may send; none: everybody on this machine.
            options: of Orthanc's configuration file, over ours.

        Raises:
            SpecError: no Orthanc is installed.
        """
        self._program = program()
        self.ae_title = ae_title
        self.dicom_port, self.http_port = _free_ports()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb = f"{self.url}/dicom-web"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "orthanc.json"
        self._settings.write_text(json.dumps({**self._configuration(peers), **options}, indent=1), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Return host:port of its storage service."""
        return f"127.0.0.1:{self.dicom_port}"

    def start(self) -> Orthanc:
        """Start it, and return when it answers.

        Raises:
            SpecError: it ended, or did not answer in time; says where its log stands.
        """
        log = self._folder / "orthanc.log"
        quick = {**os.environ, "TCP_NODELAY": "1"}  # DCMTK's name for it: without, each answer waits 40 ms
        with log.open("ab") as stream:
            self._process = subprocess.Popen(  # noqa: S603 - a program of this machine, and our own settings
                [self._program, str(self._settings)], stdout=stream, stderr=stream, env=quick
            )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.05)
        self.stop()
        raise SpecError(f"Orthanc does not answer: its log stands in {log}")

    def stop(self) -> None:
        """End it; what it stored stays in its folder, and it can be started again."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        end(process, _STOP_SECONDS)

    def __enter__(self) -> Orthanc:
        """Start it for as long as a block lasts."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    def get(self, path: str) -> httpx.Response:
        """Read from its REST interface."""
        return httpx.get(self.url + path, trust_env=False, timeout=30.0)

    def instances(self) -> list[str]:
        """Return its own ids of every object that it holds."""
        found: list[str] = self.get("/instances").json()
        return found

    def file(self, sop_instance_uid: str) -> bytes:
        """Return the file that it keeps of an object; LookupError where it has none, or several."""
        found = httpx.post(f"{self.url}/tools/lookup", content=sop_instance_uid, trust_env=False, timeout=30.0).json()
        ids = [one["ID"] for one in found if one["Type"] == "Instance"]
        if len(ids) != 1:
            raise LookupError(f"Orthanc holds {len(ids)} objects of this UID")
        return self.get(f"/instances/{ids[0]}/file").content

    def _answers(self) -> bool:
        try:
            return self.get("/system").is_success
        except httpx.HTTPError:
            return False

    def _configuration(self, peers: Sequence[str]) -> Mapping[str, Any]:
        plugin = dicomweb_plugin()
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self._folder / "storage"),
            "IndexDirectory": str(self._folder / "storage"),
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": not peers,
            "DicomModalities": {name: [name, "127.0.0.1", 104] for name in peers},
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [] if plugin is None else [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "SaveJobs": False,
        }


def dicomweb_plugin() -> Path | None:
    """Return the DICOMweb plugin (Debian: orthanc-dicomweb), None where it is not installed."""
    named = os.environ.get(PLUGINS_VARIABLE)
    for folder in (*([Path(named)] if named else []), *_PLUGINS):
        if (folder / _DICOMWEB).exists():
            return folder / _DICOMWEB
    return None


def _free_ports() -> tuple[int, int]:
    """Return two ports that are free now."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
