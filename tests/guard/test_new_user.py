"""The path of a new user: init, run, send with storescu, result in Orthanc, verify."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from titer.core.errors import SpecError
from titer.guard.home import Home
from titer.guard.operate.orthanc import Orthanc
from titer.guard.operate.setup import SETTINGS, init
from titer.guard.operate.studies import send, study, tampered

TITER = (sys.executable, "-m", "titer.cli.main")


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    made = Orthanc(tmp_path / "archive")
    made.start()
    yield made
    made.stop()


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _titer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TITER, *arguments], capture_output=True, text=True, timeout=600, check=False)


def _until(true, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.5)


@pytest.mark.slow
def test_a_new_user_makes_a_guard_sends_a_study_and_finds_its_result_in_the_archive(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    home = Home(tmp_path / "guard")
    made = _titer("guard", "init", str(home.root))
    assert made.returncode == 0, made.stderr
    assert "password in" in made.stdout
    dicom, web = _port(), _port()
    text = home.settings.read_text()
    text = text.replace("port = 11112", f"port = {dicom}").replace("port = 8080", f"port = {web}")
    text = text.replace(
        "images = []\nresults = []\nquiet_seconds = 10",
        'images = ["a"]\nresults = ["a"]\nquiet_seconds = 1\nbudget_ms = 5000',
    )
    text += f'\n[[destinations]]\nname = "a"\nkind = "dicom"\naddress = "{orthanc.address}"\nae_title = "ORTHANC"\n'
    home.settings.write_text(text)
    assert _titer("guard", "check", str(home.root)).stdout.strip() == "nothing is wrong"
    running = subprocess.Popen(
        [*TITER, "guard", "run", str(home.root)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        _until(lambda: _ready(web))
        assert _titer("guard", "run", str(home.root)).stderr.strip().endswith("another process runs this guard")
        images = _images(6)
        send(study(images[:3], "clean"), tmp_path / "sent", f"127.0.0.1:{dicom}", "TITER")
        send(tampered(study(images[3:], "tampered")), tmp_path / "sent", f"127.0.0.1:{dicom}", "TITER")
        _until(lambda: _arrived(orthanc))
        assert httpx.get(f"http://127.0.0.1:{web}/login", trust_env=False).status_code == 200
    finally:
        running.send_signal(signal.SIGTERM)
        said, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said.decode()
    verified = _titer("guard", "verify", str(home.root))
    assert (verified.returncode, "is whole" in verified.stdout) == (0, True), verified.stdout


@pytest.mark.slow
def test_the_demo_passes_the_clean_study_and_holds_the_tampered_one(tmp_path: Path) -> None:
    shown = _titer("guard", "demo", str(tmp_path / "demo"), "--once")
    assert shown.returncode == 0, shown.stderr
    said = shown.stdout.splitlines()
    assert sum(line.startswith("PASS: series") for line in said) == 1, shown.stdout
    assert sum(line.startswith("FLAG: series") for line in said) == 1
    assert any(line.startswith("BLOCK: instance") for line in said)
    assert any("1 x structured-report" in line for line in said)


def test_the_objects_of_a_demo_study_share_one_moment() -> None:
    """The series check holds a series whose objects say different SeriesTimes, as a slow machine's once did."""
    ticks = iter(range(100))

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 22, 22, 59, 58, tzinfo=tz) + timedelta(seconds=next(ticks))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("titer.guard.operate.studies.datetime", Clock)
        files = study(_images(3), "clean")
    times = {dcmread(BytesIO(content)).SeriesTime for content in files.values()}
    assert times == {"225958"}


def test_init_leaves_a_folder_that_holds_something_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SpecError, match="is not empty"):
        init(tmp_path, account=_none, model=_none)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_init_writes_is_valid_and_secret_where_it_must_be(tmp_path: Path) -> None:
    asked = []
    password = init(
        tmp_path / "guard", account=lambda *given: asked.append(given[1:3]), model=lambda path: path.mkdir(parents=True)
    )
    assert asked == [("admin", "admin")]
    assert len(password.read_text().strip()) >= 20
    for path in (password, password.parent / "signing.pem", password.parent / "identity.key"):
        assert path.stat().st_mode & 0o077 == 0
    assert Home(tmp_path / "guard").settings.read_text() == SETTINGS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere"), "holds no guard.toml"),
        (("verify", "nowhere"), "holds no guard.toml"),
        (("check", "nowhere"), "holds no guard.toml"),
        (("backup", "nowhere", "--out", "x.tar.gz"), "holds no guard.toml"),
        (("restore", "nowhere.tar.gz", "again"), "no backup"),
        (("account", "nowhere", "ines", "--role", "radiologist"), "holds no guard.toml"),
    ],
)
def test_a_wrong_folder_is_one_line_and_status_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*TITER, "guard", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def _images(count: int):
    from titer.guard.judge.demo import demo_images

    return list(demo_images(count).numpy().astype("uint8")[:, 0])


def _kinds(orthanc: Orthanc) -> list[str]:
    return sorted(orthanc.get(f"/instances/{one}/simplified-tags").json()["Modality"] for one in orthanc.instances())


def _arrived(orthanc: Orthanc) -> bool:
    """Whether the clean study and its report are there; of two patients in one study the later images are blocked."""
    kinds = _kinds(orthanc)
    return kinds.count("SR") == 1 and kinds.count("CR") in {4, 5}


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _none(*_given: object) -> None:
    raise AssertionError
