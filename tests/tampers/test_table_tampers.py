"""Tampers of VCF, expression, ECG and read files: what changed, what the stock check sees, and that a seed repeats."""

import csv
import gzip
import io
import struct

import numpy as np
import pandas as pd
import pytest
import torch

from titer.core.errors import Incompatible, SpecError
from titer.core.plugins import make_tamper
from titer.modalities._vcf import read_vcf
from titer.tampers._bgzf import EOF_BLOCK, bgzf


def _run(files, name, seed=0, **settings):
    before = dict(files)
    done = make_tamper({"name": name, **settings})(files, rng=torch.Generator().manual_seed(seed))
    again = make_tamper({"name": name, **settings})(files, rng=torch.Generator().manual_seed(seed))
    assert files == before, "the input is never changed"
    assert done.files == again.files, "the same seed gives the same bytes"
    assert done.changed
    return done


def _lines(files, name="kidd.vcf"):
    return files[name].decode().splitlines()


def _columns(files):
    """The stock check of a VCF file: as many columns as names in every record, and numbers as positions."""
    lines = [line.split("\t") for line in _lines(files) if not line.startswith("##")]
    assert all(len(line) == len(lines[0]) for line in lines)
    assert all(int(line[1]) > 0 and set(line[3] + line[4]) <= set("ACGT") for line in lines[1:])
    assert all(set(one) <= set("0123456789|/.") for line in lines[1:] for one in line[9:])
    return lines


def _read(files, tmp_path):
    path = tmp_path / "tampered.vcf"
    path.write_bytes(files["kidd.vcf"])
    return read_vcf(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vcf-genotype-range", "is out of range"),
        ("vcf-unsorted", "unsorted"),
        ("vcf-undeclared-contig", "is not declared"),
    ],
)
def test_a_vcf_tamper_passes_columns_and_our_strict_reader_names_its_line(name, told, vcf, tmp_path):
    assert len(_read(vcf, tmp_path).sites) == 55
    done = _run(vcf, name)
    _columns(done.files)
    differ = [
        i for i, pair in enumerate(zip(_lines(vcf), _lines(done.files), strict=True), start=1) if len(set(pair)) > 1
    ]
    assert differ
    with pytest.raises(SpecError, match=told) as error:
        _read(done.files, tmp_path)
    assert any(f"line {i}: " in str(error.value) for i in differ)


def test_one_alternate_allele_becomes_another_and_even_a_strict_reader_is_content(vcf, tmp_path):
    done = _run(vcf, "vcf-allele", sites=3)
    pairs = [(a, b) for a, b in zip(_columns(vcf), _columns(done.files), strict=True) if a != b]
    assert len(pairs) == 3 == len(done.changed)
    for before, after in pairs:
        assert [i for i in range(len(before)) if before[i] != after[i]] == [4]
    clean, tampered = _read(vcf, tmp_path), _read(done.files, tmp_path)
    assert (clean.dosages == tampered.dosages).all()
    assert sum(a.alternates != b.alternates for a, b in zip(clean.sites, tampered.sites, strict=True)) == 3


def test_one_genotype_changes_by_one_allele(vcf):
    pairs = [
        (a, b)
        for before, after in zip(_columns(vcf), _columns(_run(vcf, "vcf-genotype-range").files), strict=True)
        for a, b in zip(before, after, strict=True)
        if a != b
    ]
    assert len(pairs) == 1
    assert sum(a != b for a, b in zip(*pairs[0], strict=True)) == 1
    assert "2" in pairs[0][1]


@pytest.mark.parametrize("pack", [gzip.compress, bgzf])
def test_a_compressed_vcf_stays_compressed_as_it_was(pack, vcf):
    plain = _run(vcf, "vcf-allele").files["kidd.vcf"]
    packed = _run({"kidd.vcf": pack(vcf["kidd.vcf"])}, "vcf-allele").files["kidd.vcf"]
    assert gzip.decompress(packed) == plain
    assert packed.endswith(EOF_BLOCK) == (pack is bgzf)


def _table(files):
    return pd.read_csv(io.BytesIO(files["brca.csv"]), index_col=0)


def test_two_genes_change_names_and_shape_genes_and_sums_stay(expression):
    done = _run(expression, "gene-columns-swap")
    before, after = _table(expression), _table(done.files)
    assert after.shape == before.shape
    assert set(after.columns) == set(before.columns)
    assert np.allclose(after.sum(axis=1, numeric_only=True), before.sum(axis=1, numeric_only=True))
    swapped = [name for name, other in zip(before.columns, after.columns, strict=True) if name != other]
    assert len(swapped) == 2
    assert (after[swapped[0]].to_numpy() == before[swapped[1]].to_numpy()).all()
    assert expression["brca.csv"].split(b"\n", 1)[1] == done.files["brca.csv"].split(b"\n", 1)[1]


def test_one_sample_is_multiplied_and_its_ranks_stay(expression):
    done = _run(expression, "counts-scale", factor=10)
    before, after = (_table(files).select_dtypes("number") for files in (expression, done.files))
    rows = (before.to_numpy() != after.to_numpy()).any(1)
    assert rows.sum() == 1
    assert np.allclose(after.to_numpy()[rows], 10 * before.to_numpy()[rows])
    assert (np.argsort(after.to_numpy()[rows]) == np.argsort(before.to_numpy()[rows])).all()


def test_whole_counts_stay_whole_and_quotes_stay(tmp_path):
    del tmp_path
    files = {"counts.csv": b'"sample","A","B","class"\r\n"one",3,"40",x\r\n"two",5,0,"y, z"\r\n'}
    scaled = _run(files, "counts-scale", samples=2).files["counts.csv"]
    assert scaled == b'"sample","A","B","class"\r\n"one",30,"400",x\r\n"two",50,0,"y, z"\r\n'
    swapped = _run(files, "sample-swap").files["counts.csv"]
    assert swapped == b'"sample","A","B","class"\r\n"one",5,0,x\r\n"two",3,"40","y, z"\r\n'


def test_two_samples_exchange_values_and_every_gene_keeps_its_distribution(expression):
    done = _run(expression, "sample-swap")
    before, after = _table(expression), _table(done.files)
    assert list(before.index) == list(after.index)
    assert (before.select_dtypes("object") == after.select_dtypes("object")).all(axis=None)
    numbers = before.select_dtypes("number")
    assert (np.sort(numbers, axis=0) == np.sort(after.select_dtypes("number"), axis=0)).all()
    assert ((numbers != after.select_dtypes("number")).any(axis=1)).sum() == 2


def _record(files, folder):
    """The stock reader of ECG: wfdb, with the checksum of each signal compared to the header's."""
    import wfdb

    for name, content in files.items():
        (folder / name).write_bytes(content)
    stored = wfdb.rdrecord(str(folder / "100"), physical=False)
    assert stored.checksum == stored.calc_checksum()
    return wfdb.rdrecord(str(folder / "100"))


def test_two_leads_change_names_and_checksums_hold(ecg, tmp_path):
    before = _record(ecg, tmp_path)
    done = _run(ecg, "ecg-lead-swap")
    after = _record(done.files, tmp_path)
    assert after.sig_name == before.sig_name[::-1]
    assert (after.p_signal == before.p_signal).all()
    assert done.files["100.dat"] == ecg["100.dat"]


def test_voltages_are_halved_and_checksums_hold(ecg, tmp_path):
    before = _record(ecg, tmp_path)
    done = _run(ecg, "ecg-gain", factor=2)
    after = _record(done.files, tmp_path)
    assert np.allclose(after.p_signal, before.p_signal / 2)
    assert after.sig_name == before.sig_name
    assert done.files["100.dat"] == ecg["100.dat"]


def test_every_read_claims_the_same_quality_and_keeps_name_and_bases(fastq):
    done = _run(fastq, "fastq-quality", quality=30)
    before, after = (_lines(files, "reads.fastq") for files in (fastq, done.files))
    assert [line for i, line in enumerate(after) if i % 4 < 3] == [line for i, line in enumerate(before) if i % 4 < 3]
    assert all(set(line) == {chr(63)} and len(line) == 50 for line in after[3::4])
    half = _lines(_run(fastq, "fastq-quality", share=0.5).files, "reads.fastq")
    assert 5 < sum(a != b for a, b in zip(before, half, strict=True)) < 35


def _quickcheck(content):
    """As samtools quickcheck: the magic word, every block's checksum (gzip looks at them), and the empty last block."""
    plain = gzip.decompress(content)
    assert plain.startswith(b"BAM\x01")
    assert content.endswith(EOF_BLOCK)
    at = 0
    while at < len(content):
        assert content[at : at + 4] == b"\x1f\x8b\x08\x04"
        at += struct.unpack_from("<H", content, at + 16)[0] + 1
    assert at == len(content)
    return plain


def test_aligned_reads_change_their_qualities_alone(bam):
    done = _run(bam, "bam-quality", quality=37)
    before, after = _quickcheck(bam["reads.bam"]), _quickcheck(done.files["reads.bam"])
    assert len(before) == len(after)
    places = [i for i in range(len(before)) if before[i] != after[i]]
    assert 500 < len(places) <= 30 * 21
    assert {after[i] for i in places} == {37}


def test_bgzf_holds_what_was_put_in_whatever_its_size():
    rng = np.random.default_rng(0)
    for size in (0, 1, 0xFF00, 0xFF01, 200_000):
        for plain in (bytes(size), rng.integers(0, 256, size, dtype=np.uint8).tobytes()):
            packed = bgzf(plain)
            assert gzip.decompress(packed) == plain
            assert packed.endswith(EOF_BLOCK)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("vcf-allele", b"hello", "is no VCF file"),
        ("counts-scale", b"a,b\n1", "2 values|values, not"),
        ("ecg-gain", b"", "cannot be read|no WFDB header"),
        ("fastq-quality", b"@a\nACGT\n+\nII\n", "are no read"),
        ("bam-quality", b"BAM", "not in BGZF"),
    ],
)
def test_what_is_no_such_file_is_refused_with_its_name(name, content, reason):
    with pytest.raises(Incompatible, match=reason) as error:
        make_tamper(name)({"file.hea": content}, rng=torch.Generator())
    assert "file.hea" in str(error.value)


def test_a_table_that_csv_reads_is_split_alike(expression):
    from titer.tampers._tables import _read, value

    text = expression["brca.csv"].decode()
    rows = _read("brca.csv", text.split("\n"), ",")
    assert [[value(one) for one in row] for row in rows] == list(csv.reader(io.StringIO(text)))
