"""Gene expression: breast cancer subtypes, leukaemia, childhood tumours, or your own matrix of samples by genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from titer.core.plugins import Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.core.threat import Region
from titer.modalities._cohort import Reading, cohort
from titer.modalities._files import DataFile, fetch
from titer.modalities._matrix import Matrix, Wanted, read_matrix
from titer.modalities._profiles import About, Files, Measured, check_own, clinical, read_study
from titer.threats.counts import count_rules
from titer.threats.rules import Box

Values = Literal["auto", "log2", "counts", "intensity"]
_UNITS: dict[str, dict[str, float | Literal["sd"]]] = {
    "log2": {"sd": "sd", "log2": 1.0},
    "counts": {"sd": "sd", "count": 1.0},
    "intensity": {"sd": "sd"},
}
FILES = (
    DataFile(
        place="expression/tcga_brca_pam50_mrna_mirna.csv.gz",
        address="https://bioconductor.org/packages/mixOmics",
        digest="sha256:6fb26cca018600106da81faf9453057831e65d4a5bb7bbfd719384eda160c862",
        licence="TCGA open access",
    ),
    DataFile(
        place="expression/ALL_128x5000_topvar.csv.gz",
        address="https://bioconductor.org/packages/ALL",
        digest="sha256:324061e07bfda3014c2a1a0493bedc01a9c22bef8ea2418d1e28c486a27a0653",
        licence="Artistic-2.0",
    ),
    DataFile(
        place="expression/srbct_khan_63x2308.csv.gz",
        address="https://bioconductor.org/packages/mixOmics",
        digest="sha256:43ad76f01a1b87a2fcebeaf2e4ec9f8ef113464e77901f056fb5050fae56fcae",
        licence="GPL-2+",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """One of the public cohorts: its file, its columns, and which of its samples the question is about."""

    file: DataFile
    title: str
    source: str
    label: str
    classes: tuple[str, ...]
    values: Values
    ignored: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    lineage: str = ""
    blocks: dict[str, str] = field(default_factory=dict)


_STUDIES = {
    "tcga-brca": _Study(
        file=FILES[0],
        title="Breast cancer subtypes (TCGA, 200 mRNA and 184 miRNA)",
        source="TCGA breast cancer, as in mixOmics (Rohart et al. 2017, 10.1371/journal.pcbi.1005752)",
        label="subtype",
        classes=("Basal", "Her2", "LumA"),
        values="log2",
        blocks={"mrna": "mrna_", "mirna": "mirna_"},
    ),
    "leukaemia": _Study(
        file=FILES[1],
        title="B-cell leukaemia, BCR/ABL or not (5,000 probes)",
        source="Chiaretti et al. 2004, 10.1182/blood-2003-09-3243 (Bioconductor ALL)",
        label="mol_biol",
        classes=("NEG", "BCR/ABL"),
        values="log2",
        lineage="BT",
    ),
    "srbct": _Study(
        file=FILES[2],
        title="Small round blue cell tumours (2,308 genes)",
        source="Khan et al. 2001, 10.1038/89044 (mixOmics)",
        label="class",
        classes=("EWS", "BL", "NB", "RMS"),
        values="intensity",
        renamed={"1": "EWS", "2": "BL", "3": "NB", "4": "RMS"},
    ),
}


@modality("expression")
def expression(
    *,
    cohort: Literal["tcga-brca", "leukaemia", "srbct"] = "tcga-brca",
    file: str | None = None,
    test_file: str | None = None,
    label: str = "label",
    patient: str | None = None,
    ignore: tuple[str, ...] = (),
    layer: str | None = None,
    values: Values = "auto",
    blocks: dict[str, str] | None = None,
    classes: tuple[str, ...] | None = None,
    positive: str | None = None,
    test_share: Share = 0.3,
    validation_share: Share = 0.15,
    title: str = "",
    licence: str = "",
) -> Modality:
    """Gene expression: one of three public cohorts, or your own matrix of samples by genes (CSV, AnnData).

    Args:
        cohort: `tcga-brca` (PAM50 subtypes, with its own test part), `leukaemia` (BCR/ABL, hard), `srbct` (rare
            classes); not read where `file` is given.
        file: your own matrix, one sample a row: .csv, .tsv, .gz of them, or .h5ad; a plan takes it from its folder.
        test_file: your own test samples, of the same genes.
        label: the column, or the obs key, of the classes.
        patient: the column of the patients; without it each sample is a patient of its own.
        ignore: columns that are no genes and are not read.
        layer: the layer of an .h5ad file that is read, in place of X.
        values: `log2`, `counts`, `intensity` (never below 0), or `auto`: whole numbers are counts, others log2.
        blocks: several modalities of each patient side by side, as name = beginning of the names of its columns: each
            is a rule of that name, under which nothing else may change. `tcga-brca` has `mrna` and `mirna`.
        classes: names of the classes in order; by default the sorted labels.
        positive: the class that is the finding; by default the last of two.
        test_share: share of the patients tested in each trial, where the data fix no test part.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    own = {"test_file": test_file, "layer": layer, "blocks": blocks}
    check_own(file, own, classes, positive)

    def load() -> ClinicalData:
        if file is None:
            return _public(_STUDIES[cohort], (test_share, validation_share))
        reading = Reading(label=label, patient=patient, classes=classes, validation_share=validation_share)
        files = Files(file=Path(file), test_file=test_file, patient=patient, ignore=ignore, layer=layer)
        whole = read_study(files, reading)
        about = About(
            name="expression",
            title=title or Path(file).stem,
            source=f"the user's own expression matrix: {Path(file).name}",
            licence=licence or "not stated",
            positive=positive,
            test_share=test_share,
            validation_share=validation_share,
        )
        kind = values if values != "auto" else _kind(whole.every())
        return clinical(whole, about, _measured(whole.every(), kind, blocks or {}))

    return load


study_of = cohort


def _public(study: _Study, shares: tuple[float, float]) -> ClinicalData:
    optional = ("split", "sex", "age") + ((study.lineage,) if study.lineage else ())
    wanted = Wanted(needed=(study.label,), optional=optional)
    matrix = read_matrix(fetch(study.file), wanted, "data file")
    matrix = _asked(matrix, study)
    reading = Reading(
        label=study.label, patient=None, classes=study.classes, validation_share=shares[1], renamed=study.renamed
    )
    about = About(
        name="expression", title=study.title, source=study.source, licence=study.file.licence, positive=None,
        test_share=shares[0], validation_share=shares[1],
    )  # fmt: skip
    whole = study_of(matrix, None, reading)
    return clinical(whole, about, _measured(whole.every(), study.values, study.blocks))


def _asked(matrix: Matrix, study: _Study) -> Matrix:
    """Return the samples that the question is about: of leukaemia the B-cell ones with and without BCR/ABL.

    T-cell samples never have BCR/ABL and are told at a glance: with them the task would look easier than it is.
    """
    if not study.lineage:
        return matrix
    rows = [
        i
        for i, (kind, label) in enumerate(zip(matrix.columns[study.lineage], matrix.columns[study.label], strict=True))
        if kind.startswith("B") and label in study.classes
    ]
    return Matrix(
        place=matrix.place,
        ids=tuple(matrix.ids[i] for i in rows),
        features=matrix.features,
        x=matrix.x[rows],
        columns={name: [column[i] for i in rows] for name, column in matrix.columns.items()},
    )


def _kind(x: torch.Tensor) -> Values:
    """Return `counts` where every value is a whole number, none below 0 and one above 1."""
    whole = bool((x == x.round()).all()) and bool((x >= 0).all()) and float(x.max()) > 1
    return "counts" if whole else "log2"


def _measured(x: torch.Tensor, values: str, blocks: Mapping[str, str]) -> Measured:
    return Measured(
        what="gene", value=_unit_name(values), units=_UNITS[values], domain=_domain(x, values), blocks=blocks
    )


def _unit_name(values: str) -> str:
    return {"log2": "log2", "counts": "reads", "intensity": ""}[values]


def _domain(x: torch.Tensor, values: str) -> tuple[Region, ...]:
    """Return what no profile of this kind breaks: the assay's floor and ceiling, or the rules of counts."""
    if values == "counts":
        return count_rules()
    low, high = float(x.min()), float(x.max())
    if values == "intensity":
        return (Box(low=0.0, high=high, text=f"no intensity is below 0 or above the cohort's highest ({high:g})"),)
    return (Box(low=low, high=high, text=f"each value is within the assay's range, {low:g} to {high:g} in the cohort"),)
