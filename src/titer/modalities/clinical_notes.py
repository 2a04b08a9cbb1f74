"""Clinical notes: transcribed reports by specialty (MTSamples), or the user's own texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from titer.core.errors import SpecError
from titer.core.plugins import Count, Share, modality
from titer.core.protocols import Modality
from titer.core.record import ClinicalData
from titer.modalities._checks import check_classes, checked, divided, positive_class, samples
from titer.modalities._files import DataFile, fetch
from titer.modalities._note_sources import SPECIALTIES, Source, mtsamples, own_notes
from titer.modalities._notes import Note
from titer.modalities._substitutes import Table, protected, tables
from titer.threats.words import SHARE, Substitutes

FILES = (
    DataFile(
        place="clinical_text/mtsamples.csv.gz",
        address="https://www.kaggle.com/datasets/tboyle10/medicaltranscriptions",
        digest="sha256:a5a96c3543815ce96700c7718194194e596865095b2d87060b12095ad7447818",
        licence="CC0",
    ),
)


@modality("clinical-notes")
def clinical_notes(
    *,
    file: str | None = None,
    folder: str | None = None,
    text_column: str = "text",
    label_column: str = "label",
    classes: tuple[str, ...] | None = None,
    positive: str | None = None,
    specialties: Annotated[tuple[str, ...], Field(min_length=2)] = SPECIALTIES,
    words: Count = 160,
    protected_terms: tuple[str, ...] = (),
    protected: str | None = None,
    test_share: Share = 0.3,
    validation_share: Share = 0.15,
    title: str = "",
    licence: str = "",
) -> Modality:
    """Clinical notes as words: MTSamples by specialty, or your own CSV file or folder of texts.

    Without `file` and `folder` these are the MTSamples notes of four specialties, each text once. A CSV may also have
    `note_id`, `patient_id` (without it, each text is a patient of its own), `sex`, `age`, `site`, and `split`, which
    fixes the parts. Notes that are nearly the same are always one patient's.

    Args:
        file: your CSV file in UTF-8 (.gz too), one row a note; a plan takes it from its own folder.
        folder: your folder of folders, each named as its class, of .txt files in UTF-8; instead of `file`.
        text_column: column of the texts.
        label_column: column of the classes.
        classes: names of the classes in order; by default the sorted labels.
        positive: the class that is the finding; by default the last of two.
        specialties: which of MTSamples' specialties; two or more.
        words: words of a note that are read; longer notes are cut, shorter ones padded.
        protected_terms: further words that nobody may change.
        protected: a text file of further such words, one a line.
        test_share: share of the patients tested in each trial, where no `split` fixes it.
        validation_share: share of the others that stops training early.
        title: how the report calls the data.
        licence: what the report says of its licence.
    """
    if file is not None and folder is not None:
        raise SpecError(f"data.file = {file!r} and data.folder = {folder!r} are both given: allowed is one of them")
    check_classes(classes, positive)

    def load() -> ClinicalData:
        terms = [*protected_terms, *_terms_of(protected)]
        if file is None and folder is None:
            source = mtsamples(fetch(FILES[0]), specialties, words)
        else:
            source = own_notes(file, folder, text_column, label_column, classes, words)
        data = _assembled(source, words, terms)
        named = data.classes
        return checked(
            replace(
                data,
                title=title or data.title,
                licence=licence or data.licence,
                positive=positive_class(positive, named),
                test_share=test_share,
                validation_share=validation_share,
            )
        )

    return load


def _assembled(source: Source, length: int, terms: Sequence[str]) -> ClinicalData:
    everything = {word for note in source.corpus for word in note}
    kept = protected(everything, {*source.terms, *terms})
    by_kind = tables([list(note) for note in source.corpus], kept)
    read = {word for one in source.notes for word in one.words[:length]}
    reached = {other for table in by_kind.values() for word in read for other in table.get(word, ())}
    lexicon = ("", *sorted(read | reached))
    index = {word: i for i, word in enumerate(lexicon)}
    x = np.zeros((len(source.notes), length), dtype=np.float32)
    for row, one in enumerate(source.notes):
        ids = [index[word] for word in one.words[:length]]
        x[row, : len(ids)] = ids
    columns = _columns([one.note for one in source.notes])
    rows = samples(
        x,
        np.array([source.classes.index(one.note.label) for one in source.notes]),
        ids=[one.note.id for one in source.notes],
        patients=source.patients,
        columns=columns,
    )
    pool, fixed = divided(rows, source.parts)
    rules = {kind: _rule([table], index, _WHAT[kind]) for kind, table in by_kind.items()}
    return ClinicalData(
        name="clinical-notes",
        title=source.title,
        kind="text",
        source=source.source,
        licence=source.licence,
        classes=source.classes,
        positive=None,
        pool=pool,
        fixed=fixed,
        domain=(_rule(list(by_kind.values()), index, _WHAT["all"]),),
        units={"words": 1.0, SHARE: 1.0},
        rules=rules,
        lexicon=lexicon,
        written=_writer(lexicon),
    )


_WHAT = {
    "all": "each word is the note's own or a synonym, a typing error or a letter swap of it; protected words stay",
    "synonyms": "each word is the note's own or a synonym of it",
    "typos": "each word is the note's own or a typing error of it",
    "swaps": "each word is the note's own, two letters inside it swapped",
}


def _rule(parts: Sequence[Table], index: dict[str, int], text: str) -> Substitutes:
    """Return the rule of one kind of substitutes, or of several together."""
    found = [
        list(dict.fromkeys(index[o] for table in parts for o in table.get(word, ()) if o in index and o != word))
        for word in index
    ]
    table = torch.zeros(len(index), max(1, *(len(one) for one in found)), dtype=torch.int64)
    for row, others in enumerate(found):
        table[row, : len(others)] = torch.tensor(others, dtype=torch.int64)
    return Substitutes(table=table, text=text)


def _columns(notes: Sequence[Note]) -> dict[str, list[Any]]:
    names = [name for name in ("sex", "age", "site") if notes and all(name in one.columns for one in notes)]
    return {name: [one.columns[name] for one in notes] for name in names}


def _writer(lexicon: Sequence[str]) -> Callable[[Tensor], list[str]]:
    return lambda row: [lexicon[int(word)] for word in row if word > 0]


def _terms_of(path: str | None) -> list[str]:
    """Return the lines of the file of protected terms."""
    if path is None:
        return []
    try:
        return Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except OSError:
        raise SpecError(f"data.protected = {path!r}: no such file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"data.protected = {path!r}, byte {error.start}: the text is not UTF-8") from None
