"""The drawing of genotypes: VCF rows of the changed sites alone, in words that cannot become markup."""

import numpy as np

from titer.report.drawings import drawing
from titer.report.examples import Example


def _example(**meta):
    clean = np.array([[0, 1, 2, 0]], dtype=np.float32)
    adversarial = np.array([[0, 2, 2, 1]], dtype=np.float32)
    known = {
        "kind": "variants",
        "class_names": ["EUR", "AFR<b>"],
        "drawing": {
            "sites": [[str(i + 1), 100 + i, f"rs{i}" if i else "<script>", "A", "G"] for i in range(4)],
            "frequencies": {"all": [0.1, 0.2, 0.3, 0.4], "EUR": [0.5] * 4, "AFR<b>": [0.6] * 4},
        },
        "written": {"clean": [["0/0", "0/1", "1/1", "0/0"]], "adversarial": [["0/0", "1/1", "1/1", "0/1"]]},
    }
    return Example(
        clean=clean, adversarial=adversarial, label=np.array([0]), clean_prediction=np.array([0]),
        adversarial_prediction=np.array([1]), sample_id=("HG<1>",), meta={**known, **meta},
    )  # fmt: skip


def test_only_changed_sites_are_listed_with_genotypes_and_frequencies():
    drawn = drawing(_example(), 0)
    assert drawn is not None
    text = str(drawn.markup)
    assert text.count("<tr>") == 3
    for part in ("rs1", "rs3", "0/1", "1/1", "0.200", "0.400", "AF EUR", "AF all"):
        assert part in text
    assert "rs2" not in text
    assert drawn.note.startswith("2 of 4 sites changed")


def test_names_of_the_data_are_text_and_never_markup():
    text = str(drawing(_example(), 0).markup)
    assert "AFR&lt;b&gt;" in text
    assert "HG&lt;1&gt;" in text
    assert "<script>" not in text
    assert "<b>" not in text


def test_rows_without_sites_are_numbered():
    drawn = drawing(_example(drawing={}, written=None), 0)
    assert "2 alt" in str(drawn.markup)
    assert "AF" not in str(drawn.markup)
