"""A tenth of what `make bench-guard` runs whole: the soak, the mutated inputs, the kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def _bench(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=os.environ)


@pytest.mark.slow
def test_a_tenth_of_the_mutated_inputs_does_no_harm() -> None:
    done = _bench("guard_fuzz.py", "--count", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "harm: none" in done.stdout


@pytest.mark.slow
def test_a_short_soak_loses_nothing_and_leaves_a_whole_chain() -> None:
    done = _bench("guard_soak.py", "--minutes", "0.5", "--rate", "6", "--every", "3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["acknowledged"] >= 60
    assert told["acknowledged"] == told["delivered"] + told["kept"]
    assert told["kept"] > 0, "no tampered study was sent"
    assert told["lost"] == 0
    assert told["waiting"] == 0
    assert told["chain"] == []


@pytest.mark.slow
def test_kill_9_at_two_points_of_the_flow_loses_and_doubles_nothing(tmp_path: Path) -> None:
    places = ("--work", str(tmp_path / "work"), "--table", str(tmp_path / "table.md"))
    done = _bench("guard_kill.py", "--times", "2", "--only", "journal,before mark", *places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| 2 | 0 | 0 | 0 |") == 2
    assert done.stderr.count("kill 2 of 2") == 2
    assert (tmp_path / "table.md").read_text().strip() == done.stdout.strip()
    again = _bench("guard_kill.py", "--times", "2", "--only", "journal", *places)
    assert again.stdout == done.stdout, "what was found is kept"
    assert "kill" not in again.stderr
