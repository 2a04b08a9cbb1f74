"""Where notes come from: MTSamples with its many copies, or the user's own file or folder; each text once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from titer.core.errors import SpecError
from titer.modalities._checks import (
    check_patient_values,
    check_patients,
    class_names,
    class_numbers,
    listed,
    part_names,
    refuse,
)
from titer.modalities._notes import Note, digest_of, joined, read_csv, read_folder, same_texts, signature, words_of

SPECIALTIES = ("Cardiovascular / Pulmonary", "Gastroenterology", "Obstetrics / Gynecology", "Orthopedic")
"""The four specialties of an organ with the most notes that no other such specialty shares."""

_KINDS_OF_NOTE = frozenset(
    (
        "Autopsy",
        "Consult - History and Phy.",
        "Discharge Summary",
        "Emergency Room Reports",
        "General Medicine",
        "IME-QME-Work Comp etc.",
        "Lab Medicine - Pathology",
        "Letters",
        "Office Notes",
        "Radiology",
        "SOAP / Chart / Progress Notes",
        "Surgery",
    )
)
"""What the data set calls specialties and are kinds of notes: every organ's notes stand under them a second time."""

_COUNTED = 400
"""Words of each note that synonyms are learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A note cut into words: the first ones, what its whole text is known by, and its row."""

    note: Note
    words: tuple[str, ...]
    digest: str
    signature: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Notes with their classes and patients, further texts to learn synonyms from, and terms to protect."""

    title: str
    source: str
    licence: str
    notes: list[Read]
    classes: tuple[str, ...]
    patients: list[str]
    parts: list[str] | None
    corpus: list[tuple[str, ...]]
    terms: frozenset[str]


def cut(notes: Iterable[Note], kept: int) -> Iterator[Read]:
    """Yield the notes as words; of each text no more is kept than the first ones, whatever its length."""
    names: dict[str, str] = {}
    signatures: dict[str, np.ndarray] = {}
    for note in notes:
        found = words_of(note.text)
        first, digest = tuple(names.setdefault(word, word) for word in found[:kept]), digest_of(found)
        if digest not in signatures:
            signatures[digest] = signature(first)
        yield Read(note=replace(note, text=""), words=first, digest=digest, signature=signatures[digest])


def mtsamples(path: Path, specialties: tuple[str, ...], words: int) -> Source:
    """Return the notes of the specialties, each text once, that stand under no other specialty of an organ."""
    once: dict[str, Read] = {}
    under: dict[str, set[str]] = {}
    terms: set[str] = set()
    for one in cut(read_csv(path, "data file", "transcription", "medical_specialty"), max(words, _COUNTED)):
        once.setdefault(one.digest, one)
        under.setdefault(one.digest, set()).add(one.note.label)
        terms.update(part.strip() for part in one.note.columns.get("keywords", "").split(","))
    known = sorted(set().union(*under.values()))
    unknown = [name for name in specialties if name not in known]
    if unknown or len(set(specialties)) < len(specialties):
        raise SpecError(f"data.specialties = {list(specialties)!r} is not allowed: different ones of {listed(known)}")
    of_organs = {digest: names - _KINDS_OF_NOTE for digest, names in under.items()}
    of_organs = {digest: names or under[digest] for digest, names in of_organs.items()}
    chosen = [
        replace(one, note=replace(one.note, label=next(iter(of_organs[digest])), id=f"note-{one.note.id}"))
        for digest, one in once.items()
        if len(of_organs[digest]) == 1 and of_organs[digest] <= set(specialties) and one.words
    ]
    return Source(
        title="Transcribed clinical notes by specialty (MTSamples)",
        source="MTSamples (mtsamples.com), collected by Boyle 2018, Kaggle: Medical Transcriptions",
        licence="CC0",
        notes=chosen,
        classes=specialties,
        patients=_patients(chosen),
        parts=None,
        corpus=[one.words for one in once.values()],
        terms=frozenset({*terms, *known}),
    )


def own_notes(
    file: str | None,
    folder: str | None,
    text_column: str,
    label_column: str,
    classes: tuple[str, ...] | None,
    words: int,
) -> Source:
    place = Path(file or folder or "")
    read = read_csv(place, "data.file", text_column, label_column) if file else read_folder(place, "data.folder")
    notes = list(cut(read, max(words, _COUNTED)))
    if not notes:
        raise SpecError(f"data.{'file' if file else 'folder'} = {str(place)!r} holds no notes")
    check_patients(list(notes[0].note.columns))
    rows = [f"{one.note.place} ({one.note.id})" if file else one.note.place for one in notes]
    labels = [one.note.label for one in notes]
    names = classes or class_names(labels)
    problems = class_numbers(labels, names, rows)[1]
    empty = [row for row, one in zip(rows, notes, strict=True) if not one.words]
    problems += [f"data.{text_column} has no words in {listed(empty)}; every note needs some"] if empty else []
    if "patient_id" in notes[0].note.columns:
        problems += check_patient_values([one.note.columns["patient_id"] for one in notes], rows)
    parts = None
    if "split" in notes[0].note.columns:
        parts, wrong = part_names([one.note.columns["split"] for one in notes], rows)
        problems += wrong
    refuse(problems)
    refuse(_contradictions(notes, rows))
    refuse(_leaks(notes, parts))
    once = [i for i, first in enumerate(_firsts(notes)) if first == i]
    notes, parts = [notes[i] for i in once], None if parts is None else [parts[i] for i in once]
    return Source(
        title=place.name,
        source=f"the user's own notes: {place.name}",
        licence="not stated",
        notes=notes,
        classes=names,
        patients=_patients(notes),
        parts=parts,
        corpus=[one.words for one in notes],
        terms=frozenset(names),
    )


def _firsts(notes: Sequence[Read]) -> list[int]:
    seen: dict[str, int] = {}
    return [seen.setdefault(one.digest, i) for i, one in enumerate(notes)]


def _contradictions(notes: Sequence[Read], rows: Sequence[str]) -> list[str]:
    """Return what is wrong where one text has two classes."""
    wrong = [
        f"{rows[first]} is {notes[first].note.label} and {rows[i]} is {notes[i].note.label}"
        for i, first in enumerate(_firsts(notes))
        if notes[i].note.label != notes[first].note.label
    ]
    return [f"data holds the same text under two classes: {listed(wrong)}"] if wrong else []


def _leaks(notes: Sequence[Read], parts: Sequence[str] | None) -> list[str]:
    """Return what is wrong where the same text, or nearly the same, stands in two parts of a split that is given."""
    if parts is None:
        return []
    alike = joined([_firsts(notes), same_texts([one.signature for one in notes])])
    both = [
        f"{notes[first].note.id} ({parts[first]}) and {notes[i].note.id} ({parts[i]})"
        for i, first in enumerate(alike)
        if parts[i] != parts[first]
    ]
    return [f"data.split leaks: the same text stands in two parts: {listed(both)}"] if both else []


def _patients(notes: Sequence[Read]) -> list[str]:
    """Return a patient for each note: the row's own, joined where texts are nearly the same."""
    own = [one.note.columns.get("patient_id") or one.note.id for one in notes]
    groups = joined([own, same_texts([one.signature for one in notes])])
    return [own[first] for first in groups]
