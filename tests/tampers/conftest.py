"""Real files that tampers are tried on, and small ones in formats of which no real file is at hand."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from titer.tampers._bgzf import bgzf

SLICES = 7


@pytest.fixture(scope="session")
def volume(titer_data: Path) -> dict[str, bytes]:
    """Seven neighbouring slices of a real head MR, not in the order of their names."""
    with zipfile.ZipFile(titer_data / "dicom_volume" / "t1w_mr_130slices_dicom.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".dcm"))
        middle = names[len(names) // 2 : len(names) // 2 + SLICES]
        return {Path(name).name: archive.read(name) for name in reversed(middle)}


def _bundled(name: str) -> bytes:
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


@pytest.fixture(scope="session")
def ct() -> dict[str, bytes]:
    """A real CT slice, explicit little endian."""
    return {"CT_small.dcm": _bundled("CT_small.dcm")}


@pytest.fixture(scope="session")
def two_patients() -> dict[str, bytes]:
    """A CT and an MR slice of two patients, in two series."""
    return {name: _bundled(name) for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm")}


@pytest.fixture(scope="session")
def vcf(titer_data: Path) -> dict[str, bytes]:
    """The real VCF file, with its records in the order that VCF asks for."""
    text = gzip.decompress((titer_data / "genotypes" / "kidd.aisnp.1kg.vcf.gz").read_bytes()).decode()
    lines = text.splitlines()
    header = [line for line in lines if line.startswith("#")]
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    rows.sort(key=lambda row: (int(row[0]), int(row[1])))
    kept = [*header[:-1], *("\t".join(row[:60]) for row in [header[-1].split("\t"), *rows])]
    return {"kidd.vcf": ("\n".join(kept) + "\n").encode()}


@pytest.fixture(scope="session")
def expression(titer_data: Path) -> dict[str, bytes]:
    """The first lines of the real breast cancer expressions, of 40 columns."""
    text = gzip.decompress((titer_data / "expression" / "tcga_brca_pam50_mrna_mirna.csv.gz").read_bytes()).decode()
    lines = [",".join(line.split(",")[:40]) for line in text.splitlines()[:30]]
    return {"brca.csv": ("\n".join(lines) + "\n").encode()}


@pytest.fixture(scope="session")
def ecg(titer_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A WFDB record of two leads, made of real beats: the second lead is the first one's slope."""
    import wfdb

    beats = np.load(titer_data / "ecg" / "mitbih12_beats_360hz.npz")["beats_adu200"][:8].reshape(-1)
    folder = tmp_path_factory.mktemp("ecg")
    digital = np.stack([beats, np.gradient(beats).round()], axis=1).astype(np.int64)
    wfdb.wrsamp(
        "100", fs=360, units=["mV", "mV"], sig_name=["MLII", "V5"], d_signal=digital, fmt=["16", "16"],
        adc_gain=[200.0, 200.0], baseline=[0, 0], write_dir=str(folder),
    )  # fmt: skip
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def fastq() -> dict[str, bytes]:
    """Forty reads of ACGT with rising and falling qualities."""
    rng = np.random.default_rng(0)
    reads = []
    for i in range(40):
        bases = "".join(rng.choice(list("ACGT"), 50))
        marks = "".join(chr(33 + int(q)) for q in rng.integers(2, 41, 50))
        reads.append(f"@read{i} length=50\n{bases}\n+\n{marks}\n")
    return {"reads.fastq": "".join(reads).encode()}


@pytest.fixture(scope="session")
def bam() -> dict[str, bytes]:
    """A BAM file of thirty aligned reads of 21 bases, as the SAM specification lays it out (section 4.2)."""
    rng = np.random.default_rng(0)
    text = b"@HD\tVN:1.6\tSO:coordinate\n@SQ\tSN:chr1\tLN:100000\n"
    head = b"BAM\x01" + struct.pack("<i", len(text)) + text + struct.pack("<i", 1)
    head += struct.pack("<i", 5) + b"chr1\0" + struct.pack("<i", 100000)
    records = []
    for i in range(30):
        name = f"read{i}".encode() + b"\0"
        body = struct.pack("<iiBBHHHiiii", 0, 10 * i, len(name), 60, 4681, 1, 0, 21, -1, -1, 0)
        body += name + struct.pack("<I", 21 << 4) + bytes(rng.integers(0, 255, 11, dtype=np.uint8).tolist())
        body += bytes(rng.integers(2, 41, 21, dtype=np.uint8).tolist()) + b"NMC\x01"
        records.append(struct.pack("<i", len(body)) + body)
    return {"reads.bam": bgzf(head + b"".join(records))}
