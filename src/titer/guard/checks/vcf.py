"""Genotype files as inputs of a model: every bad line by its number, and sites against the panel that a model knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from titer.guard.checks.rule import EVASION
from titer.guard.records import Finding, Outcome
from titer.modalities._vcf import Record, records_of

FORM, SITES = "vcf-form", "vcf-panel"
_LINE = re.compile(r"line (\d+): (.*)", re.DOTALL)
_MOST = 100


@dataclass(frozen=True, slots=True)
class Panel:
    """The sites that a model was trained on, in their order: REF and ALT by contig and position."""

    sites: Mapping[tuple[str, int], tuple[str, tuple[str, ...]]]


@dataclass(slots=True)
class _Seen:
    places: set[tuple[str, int]] = field(default_factory=set)
    last: int = -1
    findings: list[Finding] = field(default_factory=list)


def panel_of(path: Path) -> Panel:
    """Read a panel from a VCF file, best the one that the model was trained on; bad lines are left out."""
    sites = {}
    for record in records_of(path, order="any"):
        site = record.site
        sites[site.chromosome, site.position] = (site.reference.upper(), tuple(one.upper() for one in site.alternates))
    return Panel(sites)


def check_vcf(path: Path, panel: Panel | None = None) -> list[Finding]:
    """Return what is wrong with a VCF file, nothing where all is well; at most a hundred findings of each kind.

    Lines against the format are BLOCKed: readers disagree about what they mean. Sites that are not those of the panel
    are FLAGged: a file by itself cannot show that an allele was exchanged. With a panel the order of records must be
    the panel's, else that of contigs and positions. Memory is that of one line, with a panel of its sites too.

    Args:
        path: the file, plain, gzip or BGZF.
        panel: the sites that the model knows; None checks the form alone.

    Raises:
        OSError: there is no such file.
    """
    problems: list[str] = []
    seen, count = _Seen(), 0
    path.stat()
    rank = {place: number for number, place in enumerate(panel.sites)} if panel else {}
    for record in records_of(path, None, problems, order="any" if panel else "sorted"):
        count += 1
        if panel is not None:
            _compare(record, panel, rank, seen)
    if not problems and not count:
        problems.append("it holds no records")
    found = [_malformed(problem) for problem in problems[:_MOST]]
    if panel is not None and not problems:
        absent = len(panel.sites.keys() - seen.places)
        if absent:
            seen.findings.append(
                _strange(f"{absent} of {len(panel.sites)} sites of the panel are absent", {"absent": absent})
            )
    return found + seen.findings[:_MOST]


def _compare(record: Record, panel: Panel, rank: Mapping[tuple[str, int], int], seen: _Seen) -> None:
    site = record.site
    place = (site.chromosome, site.position)
    known = panel.sites.get(place)
    where = {"contig": site.chromosome[:40], "position": site.position}
    if known is None:
        seen.findings.append(_strange(f"site {site.chromosome[:40]}:{site.position} is not in the panel", where))
        return
    seen.places.add(place)
    if rank[place] < seen.last:
        told = f"site {place[0][:40]}:{place[1]} stands after one that follows it in the panel"
        seen.findings.append(_strange(told, where))
    seen.last = max(seen.last, rank[place])
    reference, alternates = site.reference.upper(), tuple(one.upper() for one in site.alternates)
    if reference != known[0] or not set(alternates) <= set(known[1]):
        alleles = {
            **where,
            "expected": f"{known[0]}>{','.join(known[1])}",
            "found": f"{reference}>{','.join(alternates)}"[:80],
        }
        seen.findings.append(
            _strange(f"alleles at {site.chromosome[:40]}:{site.position} are not those of the panel", alleles)
        )


def _malformed(problem: str) -> Finding:
    line = _LINE.fullmatch(problem)
    evidence = {"line": int(line[1])} if line else {}
    return Finding(rule=FORM, outcome=Outcome.BLOCK, reason=problem, evidence=evidence, threats=EVASION)


def _strange(reason: str, evidence: Mapping[str, object]) -> Finding:
    return Finding(rule=SITES, outcome=Outcome.FLAG, reason=reason, evidence=evidence, threats=EVASION)
