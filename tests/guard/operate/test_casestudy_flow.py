"""The whole case study, tiny: a real guard, DCMTK and Orthanc."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from titer.core.errors import SpecError
from titer.guard.operate.casestudy.plan import Settings
from titer.guard.operate.casestudy.run import casestudy

TITER = (sys.executable, "-m", "titer.cli.main", "guard", "casestudy")


@pytest.mark.slow
def test_a_tiny_hospital_is_attacked_and_every_row_comes_from_what_became_of_real_files(
    titer_data: Path, tmp_path: Path
) -> None:
    assert which("storescu") is not None, "apt-get install dcmtk"
    folder = tmp_path / "case"
    small = ("--images", "4", "--epochs", "1", "--side", "32")
    done = subprocess.run(
        [*TITER, str(folder), *small], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "TITER_DATA": str(titer_data)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "report" / "results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert len(rows) == 8
    bare, off = rows["bare model, no guard"], rows["guard, every layer off"]
    # The same pixels and weights: behind the guard the model answers as it does alone.
    assert off["conditions"]["clean"]["accuracy"] == bare["conditions"]["clean"]["accuracy"]
    assert off["results_in_archive"] == 4 * (1 + len(off["conditions"]))
    assert off["judging_ms"]["n"] == 4
    assert off["memory_mib"]["worker"] > 50
    watched, reader = rows["+ monitors"], rows["+ review, reader always right"]
    assert watched["size_bytes"] > off["size_bytes"]
    for label, found in reader["conditions"].items():
        before = watched["conditions"][label]
        assert found["accuracy"]["count"] >= before["accuracy"]["count"]
        assert found["flagged"] == before["flagged"]
    assert "report:" in done.stdout
    assert "Hospital case study" in (folder / "report" / "index.html").read_text()


def test_a_folder_that_is_not_empty_is_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = subprocess.run([*TITER, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_that_are_not_there_are_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_spec: object) -> None:
        raise SpecError("brain_mri/brain_tumor_4class_index.csv is not on this machine")

    monkeypatch.setattr("titer.guard.operate.casestudy.models.load_data", absent)
    monkeypatch.setattr("titer.guard.operate.casestudy.plan.which", lambda *_, **__: "/bin/true")
    with pytest.raises(SpecError, match="is not on this machine"):
        casestudy(Settings(folder=tmp_path / "case"), lambda _: None)
    assert not (tmp_path / "case").exists()
