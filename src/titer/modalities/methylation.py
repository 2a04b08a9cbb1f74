"""DNA methylation: glioma subtypes from beta values, or your own matrix of samples by CpG sites."""

from __future__ import annotations

from pathlib import Path

from titer.core.errors import SpecError
from titer.core.plugins import Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._checks import check_classes, checked, positive_class
from titer.modalities._cohort import Reading, cohort, drawing, seen_range
from titer.modalities._files import DataFile, fetch
from titer.modalities._matrix import Wanted, named, read_matrix
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
_RANGE = (0.0, 1.0)


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
    if positive is not None:
        check_classes(classes, positive)
    if file is None and (test_file is not None or layer is not None or classes is not None):
        raise SpecError("data.test_file, layer and classes are not allowed without data.file: they describe your own")

    def load() -> ClinicalData:
        wanted = Wanted(needed=named((label, patient)), ignored=ignore, layer=layer)
        path = fetch(FILES[0]) if file is None else Path(file)
        matrix = read_matrix(path, wanted, "data.file")
        test = None if test_file is None else read_matrix(Path(test_file), wanted, "data.test_file")
        names = _CLUSTERS if file is None else classes
        whole = cohort(
            matrix, test, Reading(label=label, patient=patient, classes=names, validation_share=validation_share)
        )
        own = f"the user's own beta values: {path.name}"
        public = "Ceccarelli et al. 2016, 10.1016/j.cell.2015.12.028 (TCGAbiolinksGUI.data)"
        return checked(
            ClinicalData(
                name="methylation",
                title=title or ("Glioma subtypes (TCGA, 1,205 CpG sites)" if file is None else path.stem),
                kind="expression",
                source=public if file is None else own,
                licence=licence or (FILES[0].licence if file is None else "not stated"),
                classes=whole.classes,
                positive=positive_class(positive, whole.classes),
                pool=whole.pool,
                fixed=whole.fixed,
                domain=(Box(low=_RANGE[0], high=_RANGE[1], text="each beta value is in [0, 1]"),),
                units={"beta": 1.0, "sd": "sd"},
                value_range=_RANGE,
                feature_names=whole.features,
                feature_units=("beta",) * len(whole.features),
                test_share=test_share,
                validation_share=validation_share,
                rules={"cohort-range": seen_range(whole.every(), "site")},
                drawing=drawing(whole.shown, whole.classes, "CpG site", "beta"),
            )
        )

    return load
