"""What benchmarks/guard_soak.py and guard_kill.py work with: studies that are new each time, senders, the settings."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import ComputedRadiographyImageStorage

from titer.guard.judge.demo import demo_images
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.studies import study, tampered

IMAGES = 3
_UID = re.compile(rb"1\.2\.826\.0\.1\.3680043\.8\.498\.\d{20,}")
_ROOT = b"1.2.826.0.1.3680043.8.498.1"
SETTINGS = """\
[dicom]
port = {dicom}
[web]
port = {web}
[spool]
free_mib = 256
[[destinations]]
name = "archive"
kind = "dicom"
address = "{archive}"
ae_title = "ORTHANC"
retry_seconds = 0.2
longest_pause_seconds = 2
[[routes]]
name = "chest"
modalities = ["CR"]
model = "chest-xray"
images = ["archive"]
results = ["archive"]
quiet_seconds = 2
budget_ms = 5000
"""


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Studies:
    """Radiographs of 448 x 448 x 8 bit (200 kB), three a study; UIDs, patient and some pixels are new each time.

    Templates are made once: their UIDs, all of one length, are exchanged in the bytes.
    """

    def __init__(self, seed: int, templates: int = 4) -> None:
        """Make clean studies, and tampered copies of them (PixelSpacing, another patient)."""
        images = demo_images(templates * IMAGES).numpy().astype("uint8")[:, 0]
        shares = [list(images[at : at + IMAGES]) for at in range(0, len(images), IMAGES)]
        self._clean = [study(share, f"soak{number}") for number, share in enumerate(shares)]
        self._tampered = [tampered(one) for one in self._clean]
        self._rng = random.Random(seed)  # noqa: S311 - no secret

    def one(self, *, hostile: bool = False) -> list[bytes]:
        """Return the files of a study."""
        files = list(self._rng.choice(self._tampered if hostile else self._clean).values())
        fresh: dict[bytes, bytes] = {}
        patient = b"DEMO-%05d" % self._rng.randrange(100_000)
        out = []
        for content in files:
            for uid in set(_UID.findall(content)):
                digits = len(uid) - len(_ROOT)
                fresh.setdefault(uid, _ROOT + b"%0*d" % (digits, self._rng.randrange(10**digits)))
            made = _UID.sub(lambda found: fresh[found[0]], content)
            made = re.sub(rb"DEMO-SOAK\d", patient, made)
            out.append(self._noisy(made))
        return out

    def _noisy(self, content: bytes) -> bytes:
        """Change the last bits of some pixels: no two objects have the same ones."""
        out = bytearray(content)
        for place in self._rng.sample(range(len(out) - 100_000, len(out) - 1000), 64):
            out[place] ^= 1
        return bytes(out)


def sop_uid(content: bytes) -> str:
    """Return a file's SOP Instance UID."""
    return str(dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID)


def send(port: int, files: Sequence[bytes], calling: str, answers: dict[str, int], waits: list[float]) -> None:
    """Send a study with pynetdicom over one association; notes status and seconds of each object.

    An association that ends, or cannot be made, leaves the rest without an answer.
    """
    entity = AE(ae_title=calling)
    entity.add_requested_context(ComputedRadiographyImageStorage, "1.2.840.10008.1.2.1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    link = entity.associate("127.0.0.1", port, ae_title="TITER", evt_handlers=[(evt.EVT_CONN_OPEN, _quick)])
    for content in files:
        if not link.is_established:
            return
        one = dcmread(BytesIO(content))
        began = time.perf_counter()
        try:
            answer = link.send_c_store(one)
        except (RuntimeError, ValueError):  # the association ended meanwhile
            return
        if "Status" not in answer:  # the peer is gone; the link may say for a moment that it stands, and wait for 30 s
            link.abort()
            return
        waits.append(time.perf_counter() - began)
        answers[sop_uid(content)] = int(answer.Status)
    if link.is_established:
        link.release()


def _quick(event: evt.Event) -> None:
    """Send at once: without it the sender's own small packets wait for 40 ms, which is not the guard's time."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def storescu(port: int, files: Sequence[bytes], folder: Path, answers: dict[str, int]) -> None:
    """Send a study with DCMTK's storescu; its exit status 0 says that every object was acknowledged."""
    folder.mkdir(parents=True)
    for number, content in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(content)
    paths = [str(path) for path in sorted(folder.iterdir())]
    program = shutil.which("storescu") or "storescu"
    command = [program, "-aet", "DCMTK", "-aec", "TITER", "127.0.0.1", str(port), *paths]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "TCP_NODELAY": "1"})
    if done.returncode == 0:
        answers.update(dict.fromkeys(map(sop_uid, files), 0))
    shutil.rmtree(folder)


def archived(server: Orthanc) -> list[dict[str, str]]:
    """Return SOP Instance UID, modality and Study Instance UID of every object that an Orthanc holds."""
    levels = [_level(server, level) for level in ("Instance", "Series", "Study")]
    series, studies = ({one["ID"]: one for one in level} for level in levels[1:])
    out = []
    for one in levels[0]:
        its = series[one["ParentSeries"]]
        uids = {"SOPInstanceUID": one["MainDicomTags"]["SOPInstanceUID"], "Modality": its["MainDicomTags"]["Modality"]}
        out.append(uids | {"StudyInstanceUID": studies[its["ParentStudy"]]["MainDicomTags"]["StudyInstanceUID"]})
    return out


def _level(server: Orthanc, level: str) -> list[dict[str, Any]]:
    asked = {"Level": level, "Query": {}, "Expand": True}
    found: list[dict[str, Any]] = httpx.post(
        f"{server.url}/tools/find", json=asked, trust_env=False, timeout=600.0
    ).json()
    return found
