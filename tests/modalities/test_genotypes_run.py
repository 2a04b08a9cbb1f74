"""From the user's own VCF file to a report with the changed records in it."""

import numpy as np
import torch
from typer.testing import CliRunner

from titer.cli.main import app
from titer.report.examples import read_example

PLAN = """
name = "own"
trials = 1
workers = 1
attacks = ["jsma", "substitution"]

[data]
name = "genotypes"
file = "own.vcf"
labels = "own.csv"

[training]
epochs = 8
batch_size = 32
learning_rate = 0.02

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [16] }

[[threats]]
family = "SNP injection"
norm = "l0"
eps = [1, 3]
unit = "values"
rules = ["linkage-plausible"]
"""
SITES, PEOPLE = 8, 160


def _write(folder):
    """Two classes whose allele frequencies differ at every site; two sites always agree."""
    rng = np.random.default_rng(0)
    ill = np.arange(PEOPLE) % 2 == 1
    dosages = rng.binomial(2, np.where(ill[:, None], 0.75, 0.25), (PEOPLE, SITES))
    dosages[:, 1] = dosages[:, 0]
    cells = np.array(["0/0", "0/1", "1/1"])[dosages]
    names = [f"s{i}" for i in range(PEOPLE)]
    header = ["##fileformat=VCFv4.2", "##contig=<ID=1>", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT"]
    lines = [
        f"1\t{2_000_000 * (j // 2) + j + 1}\trs{j}\tA\tG\t.\t.\t.\tGT\t" + "\t".join(cells[:, j]) for j in range(SITES)
    ]
    (folder / "own.vcf").write_text("\n".join([*header[:2], header[2] + "\t" + "\t".join(names), *lines]) + "\n")
    labels = [f"{name},{'ill' if one else 'well'}" for name, one in zip(names, ill, strict=True)]
    (folder / "own.csv").write_text("\n".join(["sample,label", *labels]) + "\n")


def test_a_run_ends_in_a_report_that_shows_the_changed_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    done = CliRunner().invoke(app, ["assess", "plan.toml", "--out", "run"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Changed records of the VCF file" in report
    assert "GT before" in report
    examples = [read_example(path) for path in sorted((tmp_path / "run" / "examples").glob("*.npz"))]
    assert examples
    for one in examples:
        before, after = torch.from_numpy(one.clean), torch.from_numpy(one.adversarial)
        assert torch.equal(after, after.round())
        assert bool(((after >= 0) & (after <= 2)).all())
        assert bool(((before != after).sum(1) <= 3).all())
        assert bool(((before[:, 0] == after[:, 0]) & (before[:, 1] == after[:, 1])).all()), "no one moves alone"
