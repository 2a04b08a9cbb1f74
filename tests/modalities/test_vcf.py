"""The VCF reader: what it reads, that every bad line is named, that it streams, and that nothing makes it crash."""

import gzip
import random
import tracemalloc

import numpy as np
import pytest

from titer.core.errors import SpecError
from titer.modalities._vcf import MISSING, read_vcf, records_of
from titer.tampers._bgzf import bgzf

HEADER = [
    "##fileformat=VCFv4.2",
    "##contig=<ID=1,assembly=b37,length=1000>",
    "##contig=<ID=X>",
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tanna\tben",
]
RECORDS = [
    "1\t10\trs1\tA\tG\t100\tPASS\tDP=3\tGT\t0|1\t1|1",
    "1\t20\t.\tC\tT,CA\t.\t.\t.\tGT:DP\t0/2:7\t1/2:9",
    "X\t5\trs3\tN\t<DEL>\t1e3\tq10\tAC=1\tGT\t1\t0",
]


def _file(tmp_path, records=RECORDS, header=HEADER, pack=bytes):
    path = tmp_path / "some.vcf"
    path.write_bytes(pack(("\n".join([*header, *records]) + "\n").encode()))
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bgzf])
def test_it_counts_alternate_alleles_plain_and_compressed(pack, tmp_path):
    found = read_vcf(_file(tmp_path, pack=pack))
    assert found.samples == ("anna", "ben")
    assert found.dosages.tolist() == [[1, 1, 1], [2, 2, 0]]
    assert [site.ploidy for site in found.sites] == [2, 2, 1]
    assert [site.name for site in found.sites] == ["rs1", "1:20:C:T,CA", "rs3"]


def test_missing_genotypes_are_marked_and_say_nothing_of_the_ploidy(tmp_path):
    records = ["1\t10\trs1\tA\tG\t.\t.\t.\tGT\t./.\t.", "1\t11\trs2\tA\tG\t.\t.\t.\tGT\t0/.\t0/1"]
    found = read_vcf(_file(tmp_path, records))
    assert found.dosages.tolist() == [[MISSING, MISSING], [MISSING, 1]]
    assert [site.ploidy for site in found.sites] == [2, 2]


BAD = {
    "columns": ("1\t10\trs1\tA\tG\t.\t.\t.\tGT\t0|1", "10 columns, not 11"),
    "contig": ("7\t10\trs1\tA\tG\t.\t.\t.\tGT\t0|1\t0|0", "contig '7' is not declared"),
    "position": ("1\t-3\trs1\tA\tG\t.\t.\t.\tGT\t0|1\t0|0", "POS = '-3' is no position"),
    "end": ("1\t2000\trs1\tA\tG\t.\t.\t.\tGT\t0|1\t0|0", "beyond the end of contig 1"),
    "reference": ("1\t10\trs1\tAZ\tG\t.\t.\t.\tGT\t0|1\t0|0", "REF = 'AZ'"),
    "alternate": ("1\t10\trs1\tA\tQ\t.\t.\t.\tGT\t0|1\t0|0", "ALT = 'Q'"),
    "same allele": ("1\t10\trs1\tA\ta\t.\t.\t.\tGT\t0|1\t0|0", "name an allele twice"),
    "quality": ("1\t10\trs1\tA\tG\tgood\t.\t.\tGT\t0|1\t0|0", "QUAL = 'good'"),
    "format": ("1\t10\trs1\tA\tG\t.\t.\t.\tDP\t3\t4", "FORMAT does not begin with GT"),
    "range": ("1\t10\trs1\tA\tG\t.\t.\t.\tGT\t0|2\t0|0", "sample anna: GT = '0|2' is out of range"),
    "genotype": ("1\t10\trs1\tA\tG\t.\t.\t.\tGT\t0|1\thet", "sample ben: GT = 'het' cannot be parsed"),
    "ploidy": ("1\t10\trs1\tA\tG\t.\t.\t.\tGT\t0|1\t0", "a site needs one ploidy"),
    "many copies": ("1\t10\trs1\tA\tG\t.\t.\t.\tGT\t0|1\t" + "|".join("0" * 9), "has 9 alleles"),
}


@pytest.mark.parametrize("kind", BAD)
def test_every_bad_record_is_named_by_line(kind, tmp_path):
    record, reason = BAD[kind]
    with pytest.raises(SpecError) as error:
        read_vcf(_file(tmp_path, ["1\t5\trs0\tA\tG\t.\t.\t.\tGT\t0|1\t0|0", record]))
    assert "line 6: " in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_all_bad_records_are_told_at_once(tmp_path):
    with pytest.raises(SpecError) as error:
        read_vcf(_file(tmp_path, [record for record, _ in BAD.values()]))
    assert all(f"line {number}: " in str(error.value) for number in range(5, 15))
    assert "and 3 more" in str(error.value)


def test_a_site_twice_and_a_site_out_of_order_are_named(tmp_path):
    with pytest.raises(SpecError, match=r"line 6: the site 1:10 A G stands twice"):
        read_vcf(_file(tmp_path, [RECORDS[0], RECORDS[0]]))
    with pytest.raises(SpecError, match=r"line 6: unsorted: position 10 of contig 1 comes after 20"):
        read_vcf(_file(tmp_path, [RECORDS[1], RECORDS[0]]))
    with pytest.raises(SpecError, match=r"line 7: unsorted: contig 1 comes again after X"):
        read_vcf(_file(tmp_path, [RECORDS[0], RECORDS[2], RECORDS[1]]))
    split = [RECORDS[0], RECORDS[0].replace("\tG\t", "\tT\t")]
    assert len(read_vcf(_file(tmp_path, split)).sites) == 2, "two alternates on two lines are two records"


def test_any_order_sorts_and_still_refuses_a_site_twice(tmp_path):
    found = read_vcf(_file(tmp_path, RECORDS[::-1]), order="any")
    assert [site.position for site in found.sites] == [10, 20, 5]
    with pytest.raises(SpecError, match="stands twice"):
        read_vcf(_file(tmp_path, [*RECORDS, RECORDS[0]]), order="any")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (["hello"], "line 1: not '##fileformat=VCFv4"),
        (HEADER[:3], "before the line '#CHROM"),
        ([*HEADER[:3], HEADER[3].replace("REF", "Ref")], "line 4: its columns are not"),
        ([*HEADER[:3], HEADER[3].replace("ben", "anna")], "line 4: samples are named twice: anna"),
        ([*HEADER[:3], HEADER[3].split("\tanna")[0]], "line 4: it names no sample"),
    ],
)
def test_a_bad_header_is_named(header, reason, tmp_path):
    with pytest.raises(SpecError, match="is no valid VCF file") as error:
        read_vcf(_file(tmp_path, [], header))
    assert reason in str(error.value)


@pytest.mark.parametrize("pack", [gzip.compress, bgzf])
def test_a_truncated_file_is_refused_wherever_it_is_cut(pack, tmp_path):
    path = _file(tmp_path, pack=pack)
    whole = path.read_bytes()
    for cut in range(4, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(SpecError, match=r"truncated|no valid VCF"):
            read_vcf(path)
    path.write_bytes(bgzf(gzip.decompress(whole))[:-28])
    with pytest.raises(SpecError, match="the empty block that ends a BGZF file is absent"):
        read_vcf(path)


def test_memory_is_that_of_one_record_however_many_there_are(tmp_path):
    def peak(count):
        names = "\t".join(f"s{i}" for i in range(200))
        header = ["##fileformat=VCFv4.2", "##contig=<ID=1>", HEADER[3].replace("anna\tben", names)]
        genotypes = "\t".join(("0|1", "1|1") * 100)
        path = tmp_path / f"{count}.vcf.gz"
        with gzip.open(path, "wt") as stream:
            stream.write("\n".join(header) + "\n")
            stream.writelines(f"1\t{i + 1}\trs{i}\tA\tG\t.\t.\t.\tGT\t{genotypes}\n" for i in range(count))
        tracemalloc.start()
        assert sum(1 for _ in records_of(path)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    few, many = peak(100), peak(1000)
    assert many < 1.3 * few + 20_000


def _mutated(content, rng):
    """A file with some of its bytes changed, cut out, doubled or cut off."""
    broken = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(broken) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            broken[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del broken[at : at + rng.randint(1, 40)]
        elif kind == 2:
            broken[at:at] = broken[at : at + rng.randint(1, 60)]
        elif kind == 3:
            broken[at:at] = rng.choice([b"\t", b"\n", b"|", b"9", b"./.", b"\x00", b"\xff", b"##contig=<ID=", b"-1"])
        else:
            del broken[max(at, 1) :]
        broken = broken or bytearray(b"#")
    return bytes(broken)


def test_a_thousand_mutated_real_files_are_read_or_refused_in_one_line(tmp_path, titer_data):
    text = gzip.decompress((titer_data / "genotypes" / "kidd.aisnp.1kg.vcf.gz").read_bytes()).decode()
    lines = [line for line in text.splitlines() if not line.startswith("##contig=<ID=GL")]
    kept = [line if line.startswith("##") else "\t".join(line.split("\t")[:14]) for line in lines]
    small = (
        "\n".join([line for line in kept if line.startswith(("##fileformat", "##contig", "#C", "1"))]) + "\n"
    ).encode()
    rng, path = random.Random(0), tmp_path / "mutated.vcf"
    read, refused = 0, []
    for i in range(1000):
        content = _mutated(small, rng)
        if i % 3 == 1:
            content = gzip.compress(content)
        elif i % 3 == 2:
            content = _mutated(gzip.compress(small), rng)
        path.write_bytes(content)
        try:
            found = read_vcf(path, order="any")
        except SpecError as error:
            refused.append(str(error))
            continue
        read += 1
        assert found.dosages.shape == (len(found.samples), len(found.sites))
        assert found.dosages.dtype == np.int8
        assert all(int(column.max()) <= site.ploidy for column, site in zip(found.dosages.T, found.sites, strict=True))
    assert read > 20
    assert len(refused) > 300
    assert not any("\n" in told or len(told) > 3000 for told in refused)
