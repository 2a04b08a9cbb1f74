"""Interrupted at any point, the same command resumes, and its tables equal an uninterrupted run's."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.assess.plans import TINY, tiny
from tests.assess.test_run import same_tables

from titer.assess.run import assess

COMMAND = [sys.executable, "-m", "titer.cli.main", "assess", "tiny.toml", "--out", "out", "--workers", "2"]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the command with a weight cache of its own, as a fresh machine has it."""
    environment = os.environ | {"TITER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        COMMAND, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell lets its background jobs ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finished_cells(folder: Path) -> int:
    return len(list((folder / "out/cells").glob("*.json"))) if (folder / "out/cells").is_dir() else 0


def wait_for_cells(process: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    """Wait until `count` cells are done; fail when the process ends before."""
    while finished_cells(folder) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("whole")
    return assess(tiny(base), base / "out", workers=1)


@pytest.mark.parametrize("point", range(3))
def test_killed_at_a_random_point(point: int, uninterrupted: Path, tmp_path: Path) -> None:
    tiny(tmp_path)
    process = start(tmp_path)
    wait_for_cells(process, tmp_path, random.randint(1 + 15 * point, 14 + 15 * point))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    kept = finished_cells(tmp_path)
    assert kept < 60
    assert not (tmp_path / "out/outcomes.parquet").exists()
    resumed = start(tmp_path)
    output, error = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, error.decode()
    assert b"report: " in output
    same_tables(uninterrupted, tmp_path / "out")


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    tiny(tmp_path)
    process = start(tmp_path)
    wait_for_cells(process, tmp_path, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    last = error.decode().strip().splitlines()[-1]
    assert last.startswith("titer: stopped")
    assert "resumes" in last
    assert b"Traceback" not in error
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not list((tmp_path / "out").rglob("*.part"))


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "out/cells/.abc.parquet.123.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    one = TINY.replace("trials = 2", "trials = 1").split("[[defenses]]")[0]
    assess(tiny(tmp_path, one), tmp_path / "out", workers=1)
    assert not left.exists()
