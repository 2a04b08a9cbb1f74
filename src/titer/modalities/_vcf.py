"""Variant Call Format (VCF 4.x, samtools.github.io/hts-specs): a strict reader that streams and names bad lines."""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from titer.core.errors import SpecError
from titer.modalities._checks import listed

Order = Literal["sorted", "any"]
MISSING = -1
"""Dosage of a genotype that the file does not know."""

_FIXED = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
_LONGEST = 2**26
_MOST_PLOIDY = 8
_REPORTED = 100
_BASES = re.compile(r"[ACGTN]+", re.IGNORECASE)
_ALTERNATE = re.compile(r"[ACGTN]+|\*|<[^<>\s,]+>|[ACGTN]*[\[\]][^\[\]\s,]+[\[\]][ACGTN]*|\.[ACGTN]+|[ACGTN]+\.", re.I)
_GENOTYPE = re.compile(r"[|/]?(?:\d{1,9}|\.)(?:[|/](?:\d{1,9}|\.))*")
_CONTIG = re.compile(r"##contig=<(?:[^>]*,)?ID=([^,>]+)(?:,(?:[^>]*,)?length=(\d{1,12})(?=[,>]))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)
_EOF_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class RecordError(ValueError):
    """What is wrong with a line, in words that follow its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One record's place and alleles; `ploidy` is how many alleles each sample has there."""

    chromosome: str
    position: int
    id: str
    reference: str
    alternates: tuple[str, ...]
    ploidy: int

    @property
    def name(self) -> str:
        """The identifier, or place and alleles where the record has none."""
        place = f"{self.chromosome}:{self.position}:{self.reference}:{','.join(self.alternates) or '.'}"
        return place if self.id == "." else self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A site with int8[N]: how many alternate alleles each sample has, or MISSING."""

    site: Site
    dosages: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Genotypes:
    """All records of a file: dosages int8[N, S] of N samples at S sites."""

    samples: tuple[str, ...]
    sites: tuple[Site, ...]
    dosages: np.ndarray


@dataclass(slots=True)
class _Progress:
    """What the header declared and what the records so far held: enough to judge the next one."""

    contigs: dict[str, int | None] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    done: set[str] = field(default_factory=set)
    chromosome: str = ""
    position: int = 0
    here: set[tuple[str, int, str, str]] = field(default_factory=set)


def read_vcf(path: Path, *, order: Order = "sorted", where: str = "data.file") -> Genotypes:
    """Return all genotypes of a VCF file, plain or gzipped; sites in the order of contigs and positions.

    Args:
        path: the file.
        order: `sorted` refuses records out of order, as VCF asks for; `any` sorts them.
        where: the setting that names the file, for messages.

    Raises:
        SpecError: no such file, or a bad one; every bad line is named with its reason, the first hundred at the most.
    """
    if not path.is_file():
        raise SpecError(f"{where} = {str(path)!r}: no such file")
    problems: list[str] = []
    state = _Progress()
    records = list(records_of(path, state, problems, order=order))
    if not problems and not records:
        problems.append("it holds no records")
    if problems:
        raise SpecError(f"{where} = {str(path)!r} is no valid VCF file: {listed(problems)}")
    if order == "any":
        rank = {name: i for i, name in enumerate(state.contigs)}
        records.sort(key=lambda one: (rank[one.site.chromosome], one.site.position))
    return Genotypes(
        samples=state.samples,
        sites=tuple(one.site for one in records),
        dosages=np.stack([one.dosages for one in records], axis=1),
    )


def records_of(
    path: Path, state: _Progress | None = None, problems: list[str] | None = None, *, order: Order = "sorted"
) -> Iterator[Record]:
    """Yield the good records one by one, and add what is wrong with each bad line to `problems`.

    Memory is that of one line: of the records before it, only the place is kept (in `any` order, every place).
    """
    state = _Progress() if state is None else state
    problems = [] if problems is None else problems
    try:
        with _opened(path) as stream:
            lines = _lines(stream, problems)
            if not _header(lines, state, problems):
                return
            for number, line in lines:
                try:
                    yield _record(line, state, order)
                except RecordError as reason:
                    problems.append(f"line {number}: {reason}")
                    if len(problems) >= _REPORTED:
                        return
        if _lacks_end(path):
            problems.append("it is truncated: the empty block that ends a BGZF file is absent")
    except (EOFError, zlib.error, OSError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:100]
        problems.append(f"it is truncated or damaged ({told})")


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")  # type: ignore[return-value] # GzipFile reads bytes


def _lacks_end(path: Path) -> bool:
    """Return whether a file in BGZF (gzip blocks with the extra field BC) lacks its end: a cut no gzip reader sees."""
    with path.open("rb") as stream:
        start = stream.read(16)
        if start[:4] != b"\x1f\x8b\x08\x04" or start[12:14] != b"BC":
            return False
        stream.seek(max(0, path.stat().st_size - len(_EOF_BLOCK)))
        return stream.read() != _EOF_BLOCK


def _lines(stream: IO[bytes], problems: list[str]) -> Iterator[tuple[int, str]]:
    number = 0
    while line := stream.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST:
            problems.append(f"line {number}: longer than {_LONGEST} bytes")
            return
        try:
            yield number, line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError:
            problems.append(f"line {number}: not UTF-8")
            if len(problems) >= _REPORTED:
                return


def _header(lines: Iterator[tuple[int, str]], state: _Progress, problems: list[str]) -> bool:
    """Read up to the line of column names into `state`; return whether records can be read after it."""
    number = 0
    for number, line in lines:
        if number == 1 and not line.startswith("##fileformat=VCFv4"):
            problems.append("line 1: not '##fileformat=VCFv4.x'")
            return False
        if not line.startswith("##"):
            wrong = _columns(line, state)
            problems += [f"line {number}: {wrong}"] if wrong else []
            return not wrong
        if line.startswith("##contig="):
            found = _CONTIG.match(line)
            if found is not None:
                state.contigs[found[1]] = int(found[2]) if found[2] else None
            else:
                problems.append(f"line {number}: a contig without an ID")
    problems.append(f"line {number + 1}: the file ends before the line '#CHROM POS ID ...'")
    return False


def _columns(line: str, state: _Progress) -> str:
    """Keep the samples' names; return what is wrong with the line of column names, or nothing."""
    names = line.split("\t")
    if tuple(names[: len(_FIXED)]) != _FIXED:
        return f"its columns are not {' '.join(_FIXED)}, tab-separated, then samples"
    state.samples = tuple(names[len(_FIXED) :])
    if not state.samples:
        return "it names no sample"
    if "" in state.samples:
        return "a sample has no name"
    if len(set(state.samples)) == len(state.samples):
        return ""
    return f"samples are named twice: {listed([name for name, n in Counter(state.samples).items() if n > 1])}"


def _record(line: str, state: _Progress, order: Order) -> Record:
    """Return the record of a line, in its place after the ones before it."""
    fields = line.split("\t")
    width = len(_FIXED) + len(state.samples)
    if len(fields) != width:
        raise RecordError(f"{len(fields)} columns, not {width}")
    chromosome, place, identifier, reference, alternate, quality, passed, info, layout = fields[: len(_FIXED)]
    position = _position(chromosome, place, state)
    if not _BASES.fullmatch(reference):
        raise RecordError(f"REF = {reference[:20]!r} is not made of A, C, G, T, N")
    alternates = () if alternate == "." else tuple(alternate.split(","))
    for one in alternates:
        if not _ALTERNATE.fullmatch(one):
            raise RecordError(f"ALT = {one[:20]!r} is no allele")
    if len({reference.upper(), *(one.upper() for one in alternates)}) <= len(alternates):
        raise RecordError(f"REF and ALT name an allele twice: {reference[:20]} {alternate[:20]}")
    if quality != "." and not _NUMBER.fullmatch(quality):
        raise RecordError(f"QUAL = {quality[:20]!r} is no number")
    if "" in (identifier, passed, info) or layout.split(":", 1)[0] != "GT":
        raise RecordError("ID, FILTER or INFO is empty (a missing value is '.'), or FORMAT does not begin with GT")
    dosages, ploidy = _dosages(fields[len(_FIXED) :], len(alternates), state)
    _in_place(chromosome, position, reference, alternate, state, order)
    known: dict[str, Any] = {"chromosome": chromosome, "position": position, "id": identifier}
    site = Site(**known, reference=reference, alternates=alternates, ploidy=ploidy)
    return Record(site=site, dosages=dosages)


def _position(chromosome: str, place: str, state: _Progress) -> int:
    if chromosome not in state.contigs:
        raise RecordError(f"contig {chromosome[:40]!r} is not declared by a ##contig line")
    length = state.contigs[chromosome]
    if not (place.isascii() and place.isdigit() and len(place) <= 12 and int(place) > 0):
        raise RecordError(f"POS = {place[:20]!r} is no position: allowed are whole numbers from 1")
    if length is not None and int(place) > length:
        raise RecordError(f"POS = {place} is beyond the end of contig {chromosome} ({length})")
    return int(place)


def _in_place(chromosome: str, position: int, reference: str, alternate: str, state: _Progress, order: Order) -> None:
    """Refuse a record that stands twice, or out of order; note it as seen."""
    key = (chromosome, position, reference.upper(), alternate.upper())
    if order == "sorted":
        if chromosome in state.done:
            raise RecordError(f"unsorted: contig {chromosome} comes again after {state.chromosome}")
        if chromosome == state.chromosome and position < state.position:
            raise RecordError(f"unsorted: position {position} of contig {chromosome} comes after {state.position}")
        if (chromosome, position) != (state.chromosome, state.position):
            state.here.clear()
    if key in state.here:
        raise RecordError(f"the site {chromosome}:{position} {reference[:20]} {alternate[:20]} stands twice")
    if state.chromosome not in ("", chromosome):
        state.done.add(state.chromosome)
    state.chromosome, state.position = chromosome, position
    state.here.add(key)


def _dosages(fields: list[str], alternates: int, state: _Progress) -> tuple[np.ndarray, int]:
    """Return int8[N], each sample's alternate alleles, and the ploidy that all share."""
    counts = np.empty(len(fields), dtype=np.int8)
    ploidy = 0
    for i, text in enumerate(fields):
        try:
            counts[i], own = _counted(text.split(":", 1)[0], alternates)
        except RecordError as reason:
            raise RecordError(f"sample {state.samples[i]}: {reason}") from None
        if own not in (0, ploidy):
            if ploidy:
                raise RecordError(
                    f"sample {state.samples[i]} has {own} allele(s) where others have {ploidy}: "
                    "a site needs one ploidy (leave out sex chromosomes)"
                )
            ploidy = own
    return counts, ploidy or 2


@lru_cache(maxsize=4096)
def _counted(genotype: str, alternates: int) -> tuple[int, int]:
    """Return (alternate alleles, ploidy) of a genotype; a lone `.` is missing and says nothing of the ploidy."""
    if not _GENOTYPE.fullmatch(genotype):
        raise RecordError(f"GT = {genotype[:20]!r} cannot be parsed")
    alleles = re.split(r"[|/]", genotype.lstrip("|/"))
    if len(alleles) > _MOST_PLOIDY:
        raise RecordError(f"GT = {genotype[:20]!r} has {len(alleles)} alleles: allowed are 1 to {_MOST_PLOIDY}")
    over = [one for one in alleles if one != "." and int(one) > alternates]
    if over:
        raise RecordError(f"GT = {genotype[:20]!r} is out of range: the record has {alternates} alternate allele(s)")
    if "." in alleles:
        return MISSING, 0 if alleles == ["."] else len(alleles)
    return sum(one != "0" and int(one) > 0 for one in alleles), len(alleles)
