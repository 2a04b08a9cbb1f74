"""From the user's own volumes to a report that draws the one slice that was tampered with."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from titer.cli.main import app
from titer.report.examples import read_example
from titer.report.pictures import changed_slices

PLAN = """
name = "own"
trials = 1
workers = 1
attacks = ["pgd"]

[data]
name = "brain-volumes"
view = "blocks"
side = 12
folder = "."
labels = "labels.csv"

[training]
epochs = 3
batch_size = 8
learning_rate = 0.01

[[models]]
label = "resnet3d"
network = { name = "resnet3d", width = 2 }

[[threats]]
family = "one slice"
norm = "linf"
eps = [0.3]
unit = "range"
rules = ["one-slice"]
"""


def _write(folder: Path) -> None:
    """Three patients of 12 slices with a bright tumour in the first four."""
    lines = ["volume,mask,patient_id,split"]
    mask = np.zeros((12, 12, 12), np.int16)
    mask[3:9, 3:9, :4] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "mask.nii")
    for number, part in enumerate(("train", "val", "test")):
        volume = np.random.default_rng(number).integers(10, 60, (12, 12, 12)).astype(np.int16) + 100 * mask
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{part}.nii")
        lines.append(f"{part}.nii,mask.nii,p{number},{part}")
    (folder / "labels.csv").write_text("\n".join(lines))


def test_a_run_ends_in_a_report_that_draws_the_tampered_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    result = CliRunner().invoke(app, ["assess", "plan.toml"])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "runs" / "own" / "report.html").read_text()
    assert re.search(r"Slice 3 of 4, the only one that changes · window \d+(\.\d+)? \(black\) to \d+ \(white\)", page)
    found = [read_example(path) for path in (tmp_path / "runs" / "own" / "examples").glob("*.npz")]
    changed = {changed_slices(after - before, channels_first=True) for one in found
               for before, after in zip(one.clean, one.adversarial, strict=True)}  # fmt: skip
    assert changed == {(2,)}


def test_the_slice_that_changes_most_comes_first() -> None:
    change = np.zeros((1, 5, 2, 2), np.float32)
    change[0, 1], change[0, 3] = 0.5, -2.0
    assert changed_slices(change, channels_first=True) == (3, 1)
    assert changed_slices(np.moveaxis(change, 0, -1), channels_first=False) == (3, 1)
    assert changed_slices(change[:, 0], channels_first=True) == ()
    assert changed_slices(0 * change, channels_first=True) == ()
