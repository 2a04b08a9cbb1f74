"""Matrices of samples by genes: what is read of CSV and AnnData files, and what is refused in one line."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from titer.core.errors import SpecError
from titer.core.plugins import load_data
from titer.core.record import ClinicalData
from titer.modalities._matrix import Wanted, read_matrix
from titer.threats.rules import Box

GENES = ["TP53", "ERBB2", "ESR1", "MKI67"]
SAMPLES = 24
X = np.random.default_rng(0).normal(6, 2, (SAMPLES, len(GENES))).round(3)
Write = Callable[..., str]


def frame(x: np.ndarray = X, genes: list[str] = GENES, **columns: list[Any]) -> pd.DataFrame:
    table = pd.DataFrame(x, columns=genes, index=[f"s{i:02d}" for i in range(len(x))])
    known = {"label": [("LumA", "Basal")[i % 2] for i in range(len(x))]} | columns
    for name, values in reversed(known.items()):
        table.insert(0, name, values)
    return table


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(table: pd.DataFrame, name: str = "matrix.csv") -> str:
        path = tmp_path / name
        table.to_csv(path, sep="," if ".csv" in name else "\t")
        return str(path)

    return written


def load(file: str, name: str = "expression", **settings: Any) -> ClinicalData:
    return load_data({"name": name, "file": file, **settings})


def refusal(file: str, **settings: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(file, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def annotated(path: Path, x: Any = X, **obs: list[Any]) -> str:
    columns = {"label": [("LumA", "Basal")[i % 2] for i in range(SAMPLES)]} | obs
    index = [f"s{i:02d}" for i in range(SAMPLES)]
    anndata.AnnData(X=x, obs=pd.DataFrame(columns, index=index), var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return str(path)


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz", "m.tsv", "m.txt.gz"])
def test_text_is_read_as_it_stands(write: Write, name: str) -> None:
    data = load(write(frame(sex=["F", "M", None] * 8, age=[50] * SAMPLES), name))
    assert data.pool is not None
    assert np.array_equal(data.pool.x.numpy(), X.astype(np.float32))
    assert data.feature_names == tuple(GENES)
    assert data.classes == ("Basal", "LumA")
    assert data.pool.groups["sex"][:3] == ("F", "M", "unknown")
    assert data.units == {"sd": "sd", "log2": 1.0}
    assert data.kind == "expression"


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_annotated_data_are_read_dense_and_sparse(tmp_path: Path, form: Callable[..., Any], write: Write) -> None:
    path = annotated(tmp_path / "a.h5ad", form(X), donor=[f"d{i // 2}" for i in range(SAMPLES)], stage=["II"] * SAMPLES)
    one, other = load(path, patient="donor"), load(write(frame()))
    assert one.pool is not None
    assert other.pool is not None
    assert torch.equal(one.pool.x, other.pool.x)
    assert torch.equal(one.pool.y, other.pool.y)
    assert one.feature_names == other.feature_names
    assert one.pool.patients[:3] == ("d0", "d0", "d1")


def test_a_layer_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    obs = pd.DataFrame({"label": ["a", "b"] * 12}, index=[f"s{i}" for i in range(SAMPLES)])
    counts = np.arange(SAMPLES * 4).reshape(SAMPLES, 4)
    whole = anndata.AnnData(X=X, obs=obs, var=pd.DataFrame(index=GENES), layers={"counts": counts})
    whole.write_h5ad(tmp_path / "a.h5ad")
    data = load(str(tmp_path / "a.h5ad"), layer="counts")
    assert data.pool is not None
    assert np.array_equal(data.pool.x.numpy(), counts)
    assert "it has no layers/raw" in refusal(str(tmp_path / "a.h5ad"), layer="raw")


def test_whole_numbers_are_counts_and_keep_their_library(write: Write) -> None:
    counts = np.random.default_rng(1).integers(0, 3000, (SAMPLES, 4))
    data = load(write(frame(counts)))
    assert data.units == {"sd": "sd", "count": 1.0}
    told = [rule.describe() for rule in data.domain]
    assert any("library size" in one for one in told)
    assert load(write(frame(counts)), values="log2").units == {"sd": "sd", "log2": 1.0}


def test_methylation_keeps_to_its_range(write: Write) -> None:
    beta = np.random.default_rng(1).uniform(0, 1, (SAMPLES, 4)).round(4)
    data = load(write(frame(beta)), name="methylation", label="label")
    assert data.units == {"beta": 1.0, "sd": "sd"}
    assert isinstance(data.domain[0], Box)
    beta[3, 1] = 1.2
    with pytest.raises(SpecError, match=r"breaks its own domain rule 'each beta value is in \[0, 1\]' in s03"):
        load(write(frame(beta)), name="methylation", label="label")


def test_a_test_file_is_put_into_the_order_of_the_training_genes(write: Write) -> None:
    train = write(frame(), "train.csv")
    other = frame(X + 1)[["label", *reversed(GENES)]]
    other.index = [f"t{i}" for i in range(SAMPLES)]
    data = load(train, test_file=write(other, "test.csv"))
    assert set(data.fixed) == {"train", "validation", "test"}
    assert np.allclose(data.fixed["test"].x.numpy(), X + 1, atol=1e-5)
    assert len(data.fixed["train"]) + len(data.fixed["validation"]) == SAMPLES


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        (["TP53", "ERBB2", "ESR1", "PGR"], "lacks MKI67 of train.csv and has PGR that train.csv lacks"),
        (["TP53", "TP53", "ESR1", "MKI67"], "names columns twice: TP53"),
    ],
)
def test_genes_that_are_missing_or_twice_in_the_test_file_are_named(write: Write, genes: list[str], said: str) -> None:
    other = frame(X + 1)
    other.columns = pd.Index(["label", *genes])
    other.index = [f"t{i}" for i in range(SAMPLES)]
    message = refusal(write(frame(), "train.csv"), test_file=write(other, "test.csv"))
    assert said in message
    assert "data.test_file = 'test.csv'" in message


def test_a_leaking_split_is_named(write: Write) -> None:
    parts = ["train", "test"] * 12
    copied = X.copy()
    copied[5] = copied[2]
    assert "same values in s02 and s05 (train, test)" in refusal(write(frame(copied, split=parts)))
    assert "same values in s02 and s05: a split could" in refusal(write(frame(copied)))
    halves, patients = ["train"] * 13 + ["test"] * 11, [f"p{i // 2}" for i in range(SAMPLES)]
    assert "data.patient_id: p6 stand in both" in refusal(write(frame(split=halves, who=patients)), patient="who")


def _holed(i: int, j: int, text: Any) -> pd.DataFrame:
    table = frame().astype(object)
    table.iloc[i, j + 1] = text
    return table


@pytest.mark.parametrize(
    ("table", "settings", "said"),
    [
        (_holed(2, 1, "NA"), {}, "lacks 1 value(s): ERBB2 of s02 (line 4)"),
        (_holed(2, 1, float("nan")), {}, "ERBB2 of s02 (line 4)"),
        (_holed(3, 0, "high"), {}, "line 5, column 'TP53': 'high' is not a number"),
        (_holed(3, 0, "1_0"), {}, "'1_0' is not a number"),
        (_holed(3, 0, "1e60"), {}, "TP53 of s03"),
        (frame(stage=["II"] * SAMPLES), {}, "column 'stage': 'II' is not a number; a column that is no gene is named"),
        (frame(), {"label": "subtyp"}, "subtyp"),
        (frame(), {"patient": "donor"}, "donor"),
        (frame(subject=["a"] * SAMPLES), {"ignore": ["subject"]}, ""),
        (frame(label=["x"] * SAMPLES), {}, "at least two are needed"),
        (frame(), {"layer": "counts"}, "data.layer = 'counts' is not allowed with matrix.csv"),
        (frame().iloc[:0], {}, "holds no sample"),
        (frame()[["label"]], {}, "measures nothing"),
    ],
)
def test_what_is_wrong_is_said(write: Write, table: pd.DataFrame, settings: dict[str, Any], said: str) -> None:
    if said:
        assert said in refusal(write(table), **settings)
    else:
        load(write(table), **settings)


def test_sample_ids_that_stand_twice_are_named(write: Write) -> None:
    table = frame()
    table.index = pd.Index(["s00", *table.index[:-1]])
    assert "holds sample ids twice: s00" in refusal(write(table))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no line"),
        (b"id,label,TP53\ns1,a,1\ns2,b\n", "line 3: 2 values where the header has 3"),
        ("id,label,TP53\ns1,ä,1\n".encode("latin-1"), "is not UTF-8 text (byte 0xe4)"),
        (b"id,label,\ns1,a,1\n", "column 3 has no name"),
    ],
)
def test_a_broken_text_is_named_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    assert said in refusal(str(tmp_path / "m.csv"))


def test_a_file_that_ends_early_is_damaged(write: Write, tmp_path: Path) -> None:
    whole = Path(write(frame(), "m.csv.gz")).read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in refusal(str(tmp_path / "cut.csv.gz"))
    (tmp_path / "no.h5ad").write_bytes(b"HDF")
    assert "no AnnData file" in refusal(str(tmp_path / "no.h5ad"))


def test_memory_stays_flat_while_ten_times_as_much_is_read(tmp_path: Path) -> None:
    """Beyond the float32 array itself, ten times the text costs no more memory."""
    spare = []
    for rows in (300, 3000):
        path = tmp_path / f"{rows}.csv.gz"
        with gzip.open(path, "wt") as stream:
            stream.write("id,label," + ",".join(f"g{i}" for i in range(200)) + "\n")
            for i in range(rows):
                stream.write(f"s{i},{i % 2}," + ",".join(f"{(i * j) % 97 / 7:.12f}" for j in range(200)) + "\n")
        tracemalloc.start()
        matrix = read_matrix(path, Wanted(needed=("label",)), "data.file")
        spare.append(tracemalloc.get_traced_memory()[1] - matrix.x.nbytes)
        tracemalloc.stop()
    assert matrix.x.nbytes == 3000 * 200 * 4
    assert spare[1] < matrix.x.nbytes  # the text is six times as large


@pytest.mark.parametrize(("cohort", "classes"), [("tcga-brca", 3), ("leukaemia", 2), ("srbct", 4)])
def test_the_public_cohorts_are_there(cohort: str, classes: int, titer_data: Path) -> None:
    del titer_data
    data = load_data({"name": "expression", "cohort": cohort})
    assert len(data.classes) == classes
    means = np.asarray(data.drawing["class_means"])
    assert means.shape == (classes, len(data.feature_names or ()))
    if cohort == "tcga-brca":
        assert {name: len(part) for name, part in data.fixed.items()} == {"train": 128, "validation": 22, "test": 70}


def test_glioma_has_six_clusters(titer_data: Path) -> None:
    del titer_data
    data = load_data("methylation")
    assert data.classes == tuple(f"LGm{i}" for i in range(1, 7))
    assert data.pool is not None
    assert data.pool.x.shape == (880, 1205)


def test_what_tells_the_classes_apart_stays_finite(write: Write) -> None:
    """A p value below the smallest float, and genes that never vary, within a class or at all."""
    sharp = X.copy()
    sharp[:, 0] = np.tile([0.0, 1e6], SAMPLES // 2) + np.linspace(0, 1e-3, SAMPLES)
    sharp[:, 1], sharp[:, 2] = 7.0, np.tile([1.0, 2.0], SAMPLES // 2)
    data = load(write(frame(sharp)))
    apart = data.drawing["minus_log10_p"]
    assert all(np.isfinite(apart))
    assert apart[0] > 100
    assert apart[1:3] == [0, 300]


def test_each_block_is_a_rule_under_which_nothing_else_may_change(write: Write) -> None:
    data = load(write(frame(genes=["a_1", "a_2", "b_1", "b_2"])), blocks={"first": "a_", "second": "b_"})
    x = torch.from_numpy(X[:1]).float()
    for column in range(4):
        moved = x.clone()
        moved[0, column] += 1.0
        allowed = [name for name in ("first", "second") if bool(data.rules[name].contains(moved, x)[0])]
        assert allowed == [("first", "second")[column // 2]]


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ({"first": "c_"}, "no column's name begins so"),
        ({"cohort-range": "a_"}, "the name of another rule"),
        ({"first": "a_", "second": "a_1"}, "a_1 would stand in first as well"),
    ],
)
def test_a_block_that_is_none_is_refused(blocks: dict[str, str], why: str, write: Write) -> None:
    assert why in refusal(write(frame(genes=["a_1", "a_2", "b_1", "b_2"])), blocks=blocks)


def test_blocks_are_of_the_users_own_data() -> None:
    with pytest.raises(SpecError, match=r"blocks and classes are not allowed without data\.file"):
        load_data({"name": "expression", "blocks": {"first": "a_"}})


def test_breast_cancers_have_two_modalities(titer_data: Path) -> None:  # noqa: ARG001 - its data are read
    data = load_data("expression")
    assert data.feature_names is not None
    for name, count in (("mrna", 200), ("mirna", 184)):
        assert int(data.rules[name].mask.sum()) == count  # type: ignore[attr-defined]
