"""Profiles are drawn as a molecular biologist reads them: a heat map beside the class means, and a volcano plot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from titer.report.drawings import drawing
from titer.report.drawings.expression import _profile
from titer.report.examples import Example
from titer.report.study import Threat
from titer.report.wording import change_words

GENES = 30


def example(changed: int, **drawn: Any) -> Example:
    rng = np.random.default_rng(0)
    clean = rng.normal(6, 2, (1, GENES)).astype(np.float32)
    adversarial = clean.copy()
    adversarial[0, :changed] += np.linspace(3, 1, changed)
    known = {
        "what": "gene",
        "value": "log2",
        "classes": ["Basal", "LumA"],
        "class_means": rng.normal(6, 2, (2, GENES)).tolist(),
        "minus_log10_p": rng.uniform(0, 20, GENES).tolist(),
    }
    meta = {"kind": "expression", "model": "mlp", "defense": "none", "attack": "pgd", "drawing": known | drawn}
    meta |= {"feature_names": [f"GENE<{i}>" for i in range(GENES)], "feature_scale": [2.0] * GENES}
    zero = np.zeros(1, dtype=np.int64)
    return Example(
        clean=clean, adversarial=adversarial, label=zero, clean_prediction=zero, adversarial_prediction=zero + 1,
        sample_id=("s1",), meta=meta,
    )  # fmt: skip


def test_the_most_changed_genes_stand_beside_the_class_means() -> None:
    found = drawing(example(20), 0)
    assert found is not None
    assert found.markup.count("<svg") == 2
    assert "GENE&lt;0&gt;" in found.markup
    assert "GENE<0>" not in found.markup
    assert "Basal" in found.markup
    assert "the 16 most changed of 20 genes" in found.note
    assert "(20 up, 0 down)" in found.note


def test_changes_are_in_standard_deviations_largest_first() -> None:
    profile = _profile(example(3), 0)
    assert profile.changed.tolist() == [0, 1, 2]
    assert np.allclose(profile.change[:3], [1.5, 1.0, 0.5], atol=1e-5)
    assert not profile.change[3:].any()


def test_without_class_means_the_heat_map_stands_alone() -> None:
    found = drawing(example(2, classes=[], class_means=[], minus_log10_p=[]), 0)
    assert found is not None
    assert found.markup.count("<svg") == 1
    assert "Volcano" not in found.note


def test_a_pair_without_a_change_says_so() -> None:
    found = drawing(example(0), 0)
    assert found is not None
    assert found.note == "No gene was changed."


def test_methylation_is_drawn_as_profiles_are() -> None:
    one = example(20, what="CpG site", value="beta")
    found = drawing(replace(one, meta=one.meta | {"kind": "methylation"}), 0)
    assert found is not None
    assert "CpG site" in found.markup
    assert (
        change_words(Threat("l0", "l0", "l0", 20, "values", "gradient", "any-error", ()), "methylation")
        == "changes to at most 20 CpG sites"
    )
