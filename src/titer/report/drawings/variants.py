"""Genotypes as a geneticist reads them: the changed records of the VCF file, with how frequent the alleles are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from titer.report.drawings import Drawing
from titer.report.examples import Example
from titer.report.format import NBSP, count

_MOST = 12
_FIXED = ("CHROM", "POS", "ID", "REF", "ALT")
_NUMBERS = ("POS",)


def draw(example: Example, index: int) -> Drawing:
    """Return the changed sites of one pair as VCF rows: the genotype before and after, and allele frequencies."""
    before, after = (np.rint(rows[index].reshape(-1)) for rows in (example.clean, example.adversarial))
    changed = [int(i) for i in np.flatnonzero(before != after)]
    known: Mapping[str, Any] = example.meta.get("drawing") or {}
    sites: Sequence[Sequence[Any]] = known.get("sites") or [["?", i + 1, ".", "N", "."] for i in range(len(before))]
    written = example.meta.get("written")
    genotypes = [
        [str(one) for one in written[key][index]] if written else [f"{int(one)} alt" for one in values]
        for key, values in (("clean", before), ("adversarial", after))
    ]
    columns = _frequencies(example, index, known.get("frequencies") or {})
    head = [*_FIXED, "GT before", "GT after", *(f"AF {name}" for name in columns)]
    rows = [
        [
            *map(str, sites[i][:5]),
            genotypes[0][i],
            genotypes[1][i],
            *(f"{values[i]:.3f}" for values in columns.values()),
        ]
        for i in changed[:_MOST]
    ]
    note = f"{count(len(changed))} of {count(len(before))} sites changed; GT is unphased, 0 the reference allele."
    if len(changed) > _MOST:
        note += f" The first {_MOST} are listed."
    if columns:
        note += f" AF: frequency of the alternate alleles, over {'all' + NBSP + 'people'} and in the two classes."
    return Drawing(markup=_table(head, rows, example.sample_id[index]), note=note)


def _frequencies(example: Example, index: int, known: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Return allele frequencies over all, in the class predicted before, and in the one predicted after."""
    names = [str(name) for name in example.meta["class_names"]]
    wanted = ["all"]
    for predictions in (example.clean_prediction, example.adversarial_prediction):
        predicted = int(predictions[index])
        if 0 <= predicted < len(names):
            wanted.append(names[predicted])
    return {name: known[name] for name in dict.fromkeys(wanted) if name in known}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], sample: str) -> Markup:
    """Return the rows as a table that scrolls on a narrow screen; all text is escaped."""
    numbers = [name in _NUMBERS or name.startswith("AF ") for name in head]
    cells = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="n">{}</td>' if number else "<td>{}</td>").format(cell)  # noqa: S704 - fixed text
                for cell, number in zip(row, numbers, strict=True)
            )
        )
        for row in rows
    )
    titles = Markup("").join(
        Markup('<th scope="col" class="n">{}</th>' if number else '<th scope="col">{}</th>').format(name)  # noqa: S704
        for name, number in zip(head, numbers, strict=True)
    )
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="Changed records of {}">'
        "<table><caption><span>Changed records of the VCF file</span></caption>"
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(sample, titles, cells)
