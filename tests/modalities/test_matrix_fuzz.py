"""A thousand damaged matrices: each is read, or refused in one line; none crashes or hangs the reader."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from titer.core.errors import SpecError
from titer.core.plugins import load_data

INPUTS = 1000
PIECES = (b",", b"\n", b'"', b"nan", b"\x00", b"\xff\xfe", b"1e999", b"-", b"\r", b"_", b"\t", b"label", b"s1")
Damage = Callable[[bytes, np.random.Generator], bytes]


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, drop, repeat or insert a few bytes at random places; sometimes cut the end off."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, max(len(found), 1)))
        kind = rng.integers(0, 5)
        if kind == 0 and found:
            found[at] = int(rng.integers(0, 256))
        elif kind == 1:
            del found[at : at + int(rng.integers(1, 40))]
        elif kind == 2:
            found[at:at] = found[at : at + int(rng.integers(1, 200))]
        elif kind == 3:
            found[at:at] = PIECES[int(rng.integers(0, len(PIECES)))]
        else:
            found = found[: max(at, len(found) // 2)]
    return bytes(found)


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes in their places: a binary format keeps its offsets, so that more of it is looked at."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        found[int(rng.integers(0, len(found)))] = int(rng.integers(0, 256))
    return bytes(found) if rng.random() < 0.9 else bytes(found[: int(rng.integers(0, len(found)))])


def tried(path: Path, content: bytes, name: str, label: str) -> bool:
    """Return whether the file was refused; any other error than a SpecError of one line fails the test."""
    path.write_bytes(content)
    said = ""
    with suppress(SpecError):
        try:
            load_data({"name": name, "file": str(path), "label": label})
        except SpecError as error:
            said = str(error)
            raise
    assert "\n" not in said
    return bool(said)


@pytest.mark.parametrize(
    ("place", "name", "label"),
    [
        ("expression/tcga_brca_pam50_mrna_mirna.csv.gz", "expression", "subtype"),
        ("methylation/tcga_glioma_450k_880x1205.csv.gz", "methylation", "cluster"),
    ],
)
def test_damaged_text(titer_data: Path, tmp_path: Path, place: str, name: str, label: str) -> None:
    rng = np.random.default_rng(0)
    with gzip.open(titer_data / place, "rt") as stream:
        lines = [next(stream) for _ in range(60)]
    # The corner of the real file: twelve genes of sixty samples are as good a grammar as all.
    text = "\n".join(",".join(line.rstrip("\n").split(",")[:14]) for line in lines).encode()
    refused = sum(tried(tmp_path / "m.csv", damaged(text, rng), name, label) for _ in range(INPUTS // 2))
    assert refused > INPUTS // 10


def test_damaged_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    text = "\n".join(["id,label,TP53,ESR1", *(f"s{i},{i % 2},{i}.5,{i * i}.25" for i in range(30))])
    packed = gzip.compress(text.encode())
    refused = sum(tried(tmp_path / "m.csv.gz", damaged(packed, rng), "expression", "label") for _ in range(INPUTS))
    assert refused > INPUTS // 10


@pytest.mark.parametrize("inputs", [INPUTS // 4, pytest.param(INPUTS, marks=pytest.mark.slow)])
def test_damaged_annotated_data(tmp_path: Path, inputs: int) -> None:
    rng = np.random.default_rng(2)
    obs = pd.DataFrame({"label": pd.Categorical(["a", "b"] * 10)}, index=[f"s{i}" for i in range(20)])
    whole = anndata.AnnData(X=rng.normal(size=(20, 3)), obs=obs, var=pd.DataFrame(index=["TP53", "ESR1", "PGR"]))
    whole.write_h5ad(tmp_path / "whole.h5ad")
    content = (tmp_path / "whole.h5ad").read_bytes()
    refused = sum(tried(tmp_path / "m.h5ad", overwritten(content, rng), "expression", "label") for _ in range(inputs))
    assert refused > inputs // 10
