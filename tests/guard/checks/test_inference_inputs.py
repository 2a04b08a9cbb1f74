"""Genotypes, tables and arrays as inputs of a model."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from titer.core.plugins import make_tamper
from titer.guard.checks.matrices import Contract, check_array, check_matrix, check_table, contract_of
from titer.guard.checks.vcf import check_vcf, panel_of
from titer.guard.records import Outcome

SITES = [("1", 100, "A", "G"), ("1", 250, "C", "T"), ("2", 80, "G", "A"), ("2", 900, "T", "C")]


def vcf(path: Path, change: tuple[str, str] = ("", "")) -> Path:
    rows = [f"{c}\t{p}\trs{p}\t{r}\t{a}\t.\tPASS\t.\tGT\t0/1\t1/1" for c, p, r, a in SITES]
    head = ["##fileformat=VCFv4.2", "##contig=<ID=1,length=1000>", "##contig=<ID=2,length=1000>"]
    names = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb"
    path.write_text("\n".join([*head, names, *rows]).replace(*change) + "\n")
    return path


def test_a_clean_file_has_no_finding(tmp_path: Path) -> None:
    path = vcf(tmp_path / "a.vcf")
    assert check_vcf(path) == []
    assert check_vcf(path, panel_of(path)) == []


@pytest.mark.parametrize("tamper", ["vcf-genotype-range", "vcf-unsorted", "vcf-undeclared-contig"])
def test_a_tampered_file_is_blocked_at_its_line(tamper: str, tmp_path: Path) -> None:
    path = vcf(tmp_path / "a.vcf")
    made = make_tamper({"name": tamper})({"a": path.read_bytes()}, rng=torch.Generator().manual_seed(3))
    path.write_bytes(made.files["a"])
    findings = check_vcf(path)
    assert findings
    assert all(one.outcome is Outcome.BLOCK and 4 < one.evidence["line"] < 9 for one in findings)


def test_an_exchanged_allele_needs_the_panel(tmp_path: Path) -> None:
    panel = panel_of(vcf(tmp_path / "panel.vcf"))
    path = vcf(tmp_path / "a.vcf", ("rs250\tC\tT", "rs250\tC\tG"))
    assert check_vcf(path) == []
    (finding,) = check_vcf(path, panel)
    assert finding.outcome is Outcome.FLAG
    assert (finding.evidence["position"], finding.evidence["expected"], finding.evidence["found"]) == (
        250,
        "C>T",
        "C>G",
    )


def test_sites_that_are_absent_unknown_or_in_another_order_are_told(tmp_path: Path) -> None:
    panel = panel_of(vcf(tmp_path / "panel.vcf"))
    told = [one.reason for one in check_vcf(vcf(tmp_path / "a.vcf", ("\t250\t", "\t251\t")), panel)]
    assert told == ["site 1:251 is not in the panel", "1 of 4 sites of the panel are absent"]
    lines = vcf(tmp_path / "b.vcf").read_text().splitlines()
    (tmp_path / "b.vcf").write_text("\n".join([*lines[:4], lines[5], lines[4], *lines[6:]]) + "\n")
    assert ["follows it in the panel" in one.reason for one in check_vcf(tmp_path / "b.vcf", panel)] == [True]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"no VCF", b"##fileformat=VCFv4.2\n"])
def test_what_is_no_vcf_file_is_blocked(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.vcf"
    path.write_bytes(content)
    assert [one.outcome for one in check_vcf(path)] == [Outcome.BLOCK]


NAMES = tuple(f"gene{i}" for i in range(40))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(np.linspace(2, 12, 40), np.linspace(0.5, 1.5, 40), (200, 40))


@pytest.fixture(scope="module")
def contract(rows: np.ndarray) -> Contract:
    return contract_of(NAMES, rows[:150])


def csv_of(path: Path, values: np.ndarray, names: tuple[str, ...] = NAMES) -> Path:
    lines = [f"p{i},{','.join(f'{v:.4f}' for v in row)}" for i, row in enumerate(values)]
    path.write_text("\n".join([",".join(("id", *names)), *lines]) + "\n")
    return path


def test_rows_like_those_of_training_have_no_finding(rows: np.ndarray, contract: Contract, tmp_path: Path) -> None:
    assert check_matrix(rows[150:], contract) == []
    assert check_table(csv_of(tmp_path / "a.csv", rows[150:]), contract) == []
    zipped = tmp_path / "a.csv.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    assert check_table(zipped, contract) == []


@pytest.mark.parametrize(("tamper", "rule"), [("gene-columns-swap", "matrix-form"), ("counts-scale", "matrix-rows")])
def test_a_tampered_table_is_found(
    tamper: str, rule: str, rows: np.ndarray, contract: Contract, tmp_path: Path
) -> None:
    path = csv_of(tmp_path / "a.csv", rows[150:])
    made = make_tamper({"name": tamper})({"a": path.read_bytes()}, rng=torch.Generator().manual_seed(1))
    path.write_bytes(made.files["a"])
    assert {one.rule for one in check_table(path, contract)} == {rule}


def test_values_of_two_columns_that_were_exchanged_are_found(rows: np.ndarray, contract: Contract) -> None:
    swapped = rows[150:].copy()
    swapped[:, [3, 30]] = swapped[:, [30, 3]]
    findings = [one for one in check_matrix(swapped, contract) if one.rule == "matrix-columns"]
    assert [one.evidence["columns"] for one in findings] == [[4, 31]]


@pytest.mark.parametrize("text", ["x", "", "nan", "inf"])
def test_a_value_that_is_no_number_is_named_by_line(
    text: str, rows: np.ndarray, contract: Contract, tmp_path: Path
) -> None:
    path = csv_of(tmp_path / "a.csv", rows[150:])
    lines = path.read_text().splitlines()
    fields = lines[3].split(",")
    fields[5] = text
    lines[3] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")
    (finding,) = check_table(path, contract)
    assert (finding.outcome, finding.evidence) == (Outcome.BLOCK, {"line": 4, "column": 6})


def test_counts_must_be_whole_and_positive() -> None:
    counts = np.random.default_rng(0).poisson(20, (50, 10)).astype(float)
    contract = contract_of(NAMES[:10], counts)
    assert check_matrix(counts, contract) == []
    counts[7, 2] = 3.5
    counts[8, 4] = -1
    places = [
        (one.evidence["row"], one.evidence["column"])
        for one in check_matrix(counts, contract)
        if one.rule == "matrix-form"
    ]
    assert places == [(8, 3), (9, 5)]


def test_another_shape_and_other_names_are_blocked(rows: np.ndarray, contract: Contract) -> None:
    assert [one.outcome for one in check_matrix(rows[:, :5], contract)] == [Outcome.BLOCK]
    (finding,) = check_matrix(rows, contract, (*NAMES[:7], "other", *NAMES[8:]))
    assert finding.evidence == {"column": 8}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'id,"gene', b"\x1f\x8bno", b"id,a,a\n1,2,3\n"])
def test_what_is_no_table_is_blocked(content: bytes, contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert [one.outcome for one in check_table(path, contract)] == [Outcome.BLOCK]


def test_arrays_have_one_shape_and_lie_in_their_range() -> None:
    images = np.full((3, 1, 4, 4), 100.0)
    assert check_array(images, (1, 4, 4), 0, 255) == []
    images[1, 0, 2, 2] = 256
    images[2, 0, 0, 0] = np.nan
    assert [one.evidence["row"] for one in check_array(images, (1, 4, 4), 0, 255)] == [2, 3]
    assert [one.outcome for one in check_array(images, (3, 4, 4), 0, 255)] == [Outcome.BLOCK]
