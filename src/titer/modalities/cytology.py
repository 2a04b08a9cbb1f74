"""Breast cytology: nuclei of fine-needle aspirates, shipped inside scikit-learn, so it needs no download."""

from __future__ import annotations

import numpy as np

from titer.core.plugins import Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._checks import checked, samples
from titer.threats.rules import Box, ordered

_MEASURES = 10


@modality("cytology")
def cytology(*, test_share: Share = 0.3, validation_share: Share = 0.15) -> Modality:
    """Breast cytology, 569 patients with 30 measures of their cell nuclei; malignant or benign.

    Args:
        test_share: share of the patients tested in each trial.
        validation_share: share of the others that stops training early.
    """

    def load() -> ClinicalData:
        from sklearn.datasets import load_breast_cancer

        bundle = load_breast_cancer()
        names = tuple(str(name) for name in bundle.feature_names)
        rows = [f"wdbc-{i:03d}" for i in range(len(bundle.data))]
        # scikit-learn codes malignant as 0; the finding is the positive class here.
        x = _rounded(bundle.data)
        return checked(
            ClinicalData(
                name="cytology",
                title="Breast cytology (Wisconsin diagnostic)",
                kind="table",
                source="Wolberg, Mangasarian, Street 1993, UCI Machine Learning Repository, 10.24432/C5DW2B",
                licence="CC BY 4.0",
                classes=("benign", "malignant"),
                positive=1,
                pool=samples(x, 1 - bundle.target, ids=rows, patients=rows),
                fixed={},
                domain=(
                    Box(low=0.0, high=float("inf"), text="each measure is non-negative"),
                    ordered(
                        tuple(range(_MEASURES)),
                        tuple(range(2 * _MEASURES, 3 * _MEASURES)),
                        "each measure's worst value is at least its mean",
                    ),
                ),
                units={"sd": "sd"},
                feature_names=names,
                feature_units=tuple(_unit(name) for name in names),
                test_share=test_share,
                validation_share=validation_share,
            )
        )

    return load


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float32)


def _unit(name: str) -> str:
    """Return the measure's unit; lengths are pixels of the digitised slide (Street et al. 1993, section 2)."""
    if "radius" in name or "perimeter" in name:
        return "px"
    return "px2" if "area" in name else ""
