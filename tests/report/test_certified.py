"""Certificates in the report: known numbers of hand-made radii, and what the page says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.report.reading import read_data, read_page
from titer.report.build import build
from titer.report.certified import _curve, _median, proven
from titer.report.certified_figure import share_at
from titer.report.certified_page import radius_words
from titer.report.certified_rows import CertifiedCurve, Median

RADII = (0.0, 1.0, 2.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 3.0)
"""Of ten rows; the last one is wrong."""


def rows_of(radii: tuple[float, ...] = RADII) -> pd.DataFrame:
    ids = [f"p{index}" for index in range(len(radii))]
    holds = [True] * (len(radii) - 1) + [False]
    frame = pd.DataFrame({"trial": 0, "sample_id": ids, "patient_id": ids, "holds": holds})
    return frame.assign(radius=np.array(radii, dtype=np.float32), eligible=True, prediction=0)


def test_certified_accuracy_is_the_share_that_is_right_and_whose_radius_reaches() -> None:
    rows = rows_of()
    assert [int(proven(rows, eps).sum()) for eps in (0, 1, 1.5, 2, 4, 8)] == [9, 8, 7, 7, 5, 4]


def test_a_budget_that_float32_rounds_down_is_reached_by_its_own_radius() -> None:
    rows = rows_of((0.7, 0.7))
    assert proven(rows, 0.7).tolist() == [True, False]


def test_the_curve_says_what_reaches_each_radius_and_falls_behind_it() -> None:
    curve = _curve(rows_of(), 8.0, 10)
    assert curve.radii == (0.0, 1.0, 2.0, 4.0, 8.0)
    assert curve.shares == pytest.approx((0.9, 0.8, 0.7, 0.5, 0.4))
    assert [share_at(curve, at) for at in (0, 0.5, 2, 2.1, 8, 9)] == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.4, 0.0])
    pairs = zip(curve.low, curve.shares, curve.high, strict=True)
    assert all(low < share < high for low, share, high in pairs)


def test_no_band_of_a_curve_ever_rises() -> None:
    rng = np.random.default_rng(0)
    trials = [rows_of(tuple(rng.gamma(2.0, 2.0, 50))).assign(trial=trial) for trial in range(3)]
    curve = _curve(pd.concat(trials), 8.0, 50)
    for values in (curve.shares, curve.low, curve.high):
        assert all(np.diff(values) <= 1e-9)


def test_the_median_has_the_limits_of_its_rank() -> None:
    radii = np.arange(1.0, 102.0)
    found = _median(radii, 1000.0, 101)
    assert found.value == 51
    assert (found.low, found.high) == (41, 61)  # Wilson's limits of one half of 101 rows are 40.4 % and 59.6 %
    assert not found.capped
    assert _median(radii, 51.0, 101).capped
    assert _median(np.array([]), 1.0, 0) == Median(None, None, None, capped=False)


def test_a_radius_as_long_as_was_looked_for_is_at_least_that() -> None:
    assert radius_words(Median(8.0, 6.5, 8.0, capped=True)).startswith("≥")
    assert "no row is right" in radius_words(Median(None, None, None, capped=False))


def test_an_empty_curve_proves_nothing() -> None:
    assert _curve(rows_of().iloc[:0], 8.0, 0) == CertifiedCurve((), (), (), ())


SPEC = {"certifier": "crown", "threat_family": "linf"}


def certify(folder: Path, radius: float, *, about: str = "model", defenses: tuple[str, ...] = ("none", "jpeg")) -> Path:
    """Add certificates of every simulated row to a run folder: all of one radius."""
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    frames, parts = [], []
    for defense in defenses:
        clean = outcomes[(outcomes["attack"] == "none") & (outcomes["defense"] == defense)]
        for trial, rows in clean.groupby("trial"):
            right = rows["clean_prediction"] == rows["label"]
            lost = outcomes[
                (outcomes["defense"] == defense) & (outcomes["trial"] == trial) & (outcomes["threat"] == "linf 2/255")
            ]
            unbroken = ~rows["sample_id"].isin(lost.loc[lost["won"] & (lost["source"] == defense), "sample_id"])
            frames.append(
                rows[["trial", "model", "defense", "sample_id", "patient_id", "label"]].assign(
                    certifier="crown", threat_family="linf", norm="linf", unit="/255", eps=8.0, goal="any-error",
                    eligible=True, prediction=rows["clean_prediction"], holds=right,
                    radius=np.where(right & unbroken, radius, 0).astype(np.float32), confidence=1.0,
                )
            )  # fmt: skip
            confidence = 1.0 if about == "model" else 0.999
            facts = {"title": "CROWN linear bounds", "norm": "linf", "unit": "/255", "eps": 8.0, "about": about}
            facts |= {"confidence": confidence, "rows": len(rows), "cpu_seconds_per_row": 0.01, "samples_per_row": None}
            parts.append(
                {
                    "trial": int(trial),
                    "model": "small-cnn",
                    "defense": defense,
                    "title": "",
                    "part": f"{defense}{trial}",
                }
                | {"spec": SPEC, "facts": SPEC | facts}
            )
    parts += [
        {"trial": trial, "model": "small-cnn", "defense": defense, "title": "", "part": f"{defense}{trial}"}
        | {"spec": SPEC, "skipped": "it answers at random"}
        for defense in ("smoothing", "hybrid")
        for trial in range(5)
    ]
    if frames:
        pd.concat(frames).to_parquet(folder / "certification.parquet")
    (folder / "certification.json").write_text(json.dumps({"format_version": 1, "parts": parts}))
    build(folder)
    return folder


@pytest.fixture(scope="module")
def folder(masters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every unbroken row is proven up to 2 grey levels."""
    copied = shutil.copytree(masters["image"], tmp_path_factory.mktemp("certified") / "image")
    return certify(Path(copied), 2.0)


def test_proven_and_neither_add_up_to_what_withstood(folder: Path) -> None:
    entries = read_data(folder)["certified"]["certificates"]
    assert [one["defense"] for one in entries] == ["none", "jpeg"]
    for one in entries:
        first, _, last = one["budgets"]
        assert first["proven"]["mean"] == pytest.approx(first["withstood"]["mean"])
        assert first["neither"]["mean"] == pytest.approx(0)
        assert last["proven"]["mean"] == 0
        assert last["neither"]["mean"] == pytest.approx(last["withstood"]["mean"])
        assert last["proven"]["high"] > 0, "none of a few rows is not none of all patients"
        assert one["trials"] == 5
    text = read_page(folder).sections["certificates"]
    assert "of at most 2 grey levels (of 255) per pixel" in text, "the largest budget at which anything is proven"


def test_refusals_are_grouped_by_reason(folder: Path) -> None:
    refused = read_data(folder)["certified"]["refusals"]
    assert refused == [
        {
            "certifier": "crown",
            "reason": "it answers at random",
            "defenses": ["Randomized smoothing", "Adversarial training + JPEG compression"],
            "families": ["linf"],
            "parts": 10,
        }
    ]
    assert "Not certified, and why" in read_page(folder).sections["certificates"]


def test_a_certificate_of_another_model_has_no_gap(copy: Callable[[str], Path]) -> None:
    folder = certify(copy("image"), 2.0, about="another")
    text = read_page(folder).sections["certificates"]
    assert "another model than the one attacked" in text
    assert "No points" in text
    assert "neither proven nor broken." not in text.split("No points")[1].split("Certificate of")[0]


def test_bounds_that_prove_nothing_are_said_to(copy: Callable[[str], Path]) -> None:
    text = read_page(certify(copy("image"), 0.0)).sections["certificates"]
    assert "No certifier proves anything here" in text
    assert "Not a single row was proven" in text


def test_a_run_in_which_nothing_could_be_certified_says_so(copy: Callable[[str], Path]) -> None:
    text = read_page(certify(copy("image"), 0.0, defenses=())).sections["certificates"]
    assert "Nothing could be certified" in text
    assert "it answers at random" in text


def test_a_run_without_certification_has_no_such_section(masters: dict[str, Any]) -> None:
    page = read_page(masters["image"])
    assert "certificates" not in page.sections
    assert read_data(masters["image"])["certified"] is None
