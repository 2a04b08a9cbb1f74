"""DNA methylation: glioma subtypes from beta values, or your own matrix of samples by CpG sites."""

from __future__ import annotations

from pathlib import Path

from titer.core.plugins import Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._cohort import Reading
from titer.modalities._files import DataFile, fetch
from titer.modalities._profiles import About, Files, Measured, check_own, clinical, read_study
from titer.threats.rules import Box

FILES = (
    DataFile(
        place="methylation/tcga_glioma_450k_880x1205.csv.gz",
        address="https://bioconductor.org/packages/TCGAbiolinksGUI.data",
        digest="sha256:2a5f10c0314152d9154da041eaedaf1240158f1ee232a9e69f0a57a9e7c4fdc4",
        licence="TCGA open access",
    ),
)
_CLUSTERS = tuple(f"LGm{i}" for i in range(1, 7))
_TITLE = "Glioma subtypes (TCGA, 1,205 CpG sites)"
_SOURCE = "Ceccarelli et al. 2016, 10.1016/j.cell.2015.12.028 (TCGAbiolinksGUI.data)"
_RANGE = (0.0, 1.0)
_BETA = Measured(
    what="CpG site",
    value="beta",
    units={"beta": 1.0, "sd": "sd"},
    domain=(Box(low=_RANGE[0], high=_RANGE[1], text="each beta value is in [0, 1]"),),
    kind="methylation",
    value_range=_RANGE,
)


@modality("methylation")
def methylation(
    *,
    file: str | None = None,
    test_file: str | None = None,
    label: str = "cluster",
    patient: str | None = None,
    ignore: tuple[str, ...] = (),
    layer: str | None = None,
    classes: tuple[str, ...] | None = None,
    positive: str | None = None,
    test_share: Share = 0.3,
    validation_share: Share = 0.15,
    title: str = "",
    licence: str = "",
) -> Modality:
    """DNA methylation: six clusters of TCGA glioma, or your own matrix of samples by CpG sites (CSV, AnnData).

    Args:
        file: your own beta values, one sample a row: .csv, .tsv, .gz of them, or .h5ad; relative to the plan's folder.
        test_file: your own test samples, of the same sites.
        label: the column, or the obs key, of the classes.
        patient: the column of the patients; without it each sample is a patient of its own.
        ignore: columns that are no sites and are not read.
        layer: the layer of an .h5ad file that is read, in place of X.
        classes: names of the classes in order; by default the sorted labels.
        positive: the class that is the finding; by default the last of two.
        test_share: share of the patients tested in each trial, where the data fix no test part.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    check_own(file, {"test_file": test_file, "layer": layer}, classes, positive)

    def load() -> ClinicalData:
        path = fetch(FILES[0]) if file is None else Path(file)
        files = Files(file=path, test_file=test_file, patient=patient, ignore=ignore, layer=layer)
        names = _CLUSTERS if file is None else classes
        reading = Reading(label=label, patient=patient, classes=names, validation_share=validation_share)
        about = About(
            name="methylation",
            title=title or (_TITLE if file is None else path.stem),
            source=_SOURCE if file is None else f"the user's own beta values: {path.name}",
            licence=licence or (FILES[0].licence if file is None else "not stated"),
            positive=positive,
            test_share=test_share,
            validation_share=validation_share,
        )
        return clinical(read_study(files, reading), about, _BETA)

    return load
