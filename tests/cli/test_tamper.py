"""`titer tamper`: files in, tampered files and a list of what changed out, and one line for a mistake."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from titer.cli.main import app
from titer.core.errors import SpecError

READS = "@a\nACGT\n+\nIIII\n@b\nACGT\n+\n!!!!\n"


@pytest.fixture
def reads(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "reads.fastq").write_text(READS)
    return folder


def _tamper(*words):
    return CliRunner().invoke(app, ["tamper", *map(str, words)], catch_exceptions=False)


def test_it_writes_the_files_and_what_changed_and_leaves_the_originals(reads, tmp_path):
    out = tmp_path / "out"
    done = _tamper(reads, "--with", "fastq-quality", "--set", "quality=20", "--out", out, "--seed", "3")
    assert done.exit_code == 0
    assert (reads / "reads.fastq").read_text() == READS
    tampered = (out / "reads.fastq").read_text()
    assert tampered.splitlines()[3::4] == ["5555", "5555"]
    told = json.loads((out / "changes.json").read_text())
    assert (told["tamper"], told["settings"], told["seed"]) == ("fastq-quality", {"quality": 20}, 3)
    assert told["changed"] == ["reads.fastq: 2 of 2 reads got quality 20 at every base"]
    assert told["files"][0]["sha256_before"] == hashlib.sha256(READS.encode()).hexdigest()
    assert told["files"][0]["sha256"] == hashlib.sha256(tampered.encode()).hexdigest()
    assert sorted(path.name for path in out.iterdir()) == ["changes.json", "reads.fastq"]


def test_one_seed_gives_the_same_bytes_and_another_does_not(reads, tmp_path):
    (reads / "reads.fastq").write_text(READS * 20)
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        _tamper(reads / "reads.fastq", "--with", "fastq-quality", "--set", "share=0.5", "--out", out, "--seed", seed)
    first, again, other = ((out / "reads.fastq").read_bytes() for out in outs)
    assert first == again != other


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--with", "fastq-qualty", "--out", "out"], "did you mean 'fastq-quality'"),
        (["--with", "fastq-quality", "--out", "out", "--set", "quality=200"], "quality = 200 is not allowed"),
        (["--with", "fastq-quality", "--out", "out", "--set", "quality"], "allowed is key=value"),
        (["--with", "bam-quality", "--out", "out"], "cannot be done to these files: reads.fastq is no BAM file"),
        (["--with", "fastq-quality", "--out", "in"], "the original would be overwritten"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(words, reason, reads, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as error:
        _tamper(reads, *words)
    assert reason in str(error.value)
    assert not Path("out").exists()
    assert sorted(path.name for path in reads.iterdir()) == ["reads.fastq"]
