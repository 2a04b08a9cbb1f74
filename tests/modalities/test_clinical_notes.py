"""Clinical notes: what is read, what is the same, what may become of a word, and what is refused."""

import gzip
import random
import tracemalloc

import pytest
import torch

from titer.core.errors import SpecError
from titer.core.plugins import make
from titer.modalities._notes import joined, read_csv, same_texts, signature, words_of
from titer.modalities._substitutes import protected, swaps, synonyms, typos

HEART = "the patient has chest pain and palpitations with an irregular heartbeat noted on examination today number"
BONE = "the patient fell and has a painful swollen knee with a fracture noted on examination of the leg number"


def _load(**settings):
    return make("modalities", {"name": "clinical-notes", **settings})()


def _rows(count=12):
    """Texts that share no run of words."""
    rng = random.Random(0)
    for i in range(count):
        words = (HEART if i % 2 else BONE).split()
        rng.shuffle(words)
        yield " ".join([*words, f"{i}{i}"]), "heart" if i % 2 else "bone"


def _csv(path, lines, header="text,label"):
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def _file(tmp_path, **columns):
    lines = [f'"{text}",{label}' for text, label in _rows()]
    for values in columns.values():
        lines = [f"{line},{value}" for line, value in zip(lines, values, strict=True)]
    return _csv(tmp_path / "notes.csv", lines, ",".join(["text", "label", *columns]))


@pytest.fixture(scope="module")
def shipped(titer_data):
    del titer_data
    return _load()


def test_mtsamples_holds_each_text_once_under_four_specialties(shipped):
    assert shipped.classes == (
        "Cardiovascular / Pulmonary", "Gastroenterology", "Obstetrics / Gynecology", "Orthopedic",
    )  # fmt: skip
    assert torch.bincount(shipped.pool.y).tolist() == [343, 190, 142, 224]
    written = {tuple(shipped.written(row)) for row in shipped.pool.x}
    assert len(written) > 0.98 * len(shipped.pool), "beginnings may agree, whole texts may not"
    assert shipped.kind == "text"


def test_notes_that_are_nearly_the_same_are_one_patients(shipped):
    assert len(set(shipped.pool.patients)) < len(shipped.pool)


def test_protected_words_stay(shipped):
    table = shipped.domain[0].table
    word = {name: i for i, name in enumerate(shipped.lexicon)}
    for one in (
        "no",
        "left",
        "right",
        "without",
        "colonoscopy",
        "fracture",
        "aspirin",
        "mg",
        "5",
        "orthopedic",
        "severe",
    ):
        if one in word:
            assert int((table[word[one]] > 0).sum()) == 0, one
    assert int((table[word["showed"]] > 0).sum()) > 0
    with_digits = [i for name, i in word.items() if any(c.isdigit() for c in name)]
    assert int((table[with_digits] > 0).sum()) == 0


def test_no_typing_error_is_another_word_of_the_notes(shipped):
    read = set(shipped.pool.x.unique().long().tolist())
    for kind in ("typos", "swaps"):
        found = set(shipped.rules[kind].table.unique().tolist()) - {0}
        assert not found & read, kind


def test_named_rules_are_parts_of_the_rule_that_always_holds(shipped):
    whole = shipped.domain[0].table
    for rule in shipped.rules.values():
        inside = (rule.table.unsqueeze(2) == whole.unsqueeze(1)).any(2) | (rule.table == 0)
        assert bool(inside.all())


def test_own_terms_are_protected_too(tmp_path):
    place, terms = _file(tmp_path), tmp_path / "terms.txt"
    terms.write_text("painful\nirregular heartbeat\n")
    free, kept = _load(file=place), _load(file=place, protected=str(terms), protected_terms=("swollen",))
    for word in ("painful", "irregular", "heartbeat", "swollen"):
        assert int((free.domain[0].table[free.lexicon.index(word)] > 0).sum()) > 0
        assert int((kept.domain[0].table[kept.lexicon.index(word)] > 0).sum()) == 0


def test_a_csv_and_a_folder_of_the_same_texts_are_the_same_notes(tmp_path):
    one = _load(file=_file(tmp_path))
    for i, (text, label) in enumerate(_rows()):
        place = tmp_path / "texts" / label / f"{i:02d}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    other = _load(folder=str(tmp_path / "texts"))
    assert one.classes == other.classes == ("bone", "heart")
    assert {tuple(one.written(row)) for row in one.pool.x} == {tuple(other.written(row)) for row in other.pool.x}


def test_a_zipped_csv_is_read_too(tmp_path):
    plain = _file(tmp_path)
    packed = tmp_path / "notes.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "notes.csv").read_bytes()))
    assert torch.equal(_load(file=plain).pool.x, _load(file=str(packed)).pool.x)


def test_long_notes_are_cut_and_short_ones_padded(tmp_path):
    data = _load(file=_file(tmp_path), words=5)
    assert data.pool.x.shape[1] == 5
    assert bool((data.pool.x > 0).all())
    assert _load(file=_file(tmp_path), words=100).pool.x[:, 40:].abs().sum() == 0


def test_a_text_that_stands_twice_is_one_note(tmp_path):
    lines = [f'"{text}",{label}' for text, label in _rows()]
    data = _load(file=_csv(tmp_path / "twice.csv", [*lines, *lines]))
    assert len(data.pool) == 12


def test_a_patient_with_two_notes_stays_one_patient(tmp_path):
    data = _load(file=_file(tmp_path, patient_id=[i // 2 for i in range(12)]))
    assert sorted(set(data.pool.patients), key=int) == [str(i) for i in range(6)]


@pytest.mark.parametrize("change", ["", " today"])
def test_a_split_with_the_same_text_on_both_sides_is_refused_by_name(tmp_path, change):
    parts = ["train", "train", "validation", "validation", "test", "test"]
    texts = list(_rows(6))
    lines = [
        f'"{text * 1} {" ".join(text.split() * 6)}",{label},{part}'
        for (text, label), part in zip(texts, parts, strict=True)
    ]
    lines += [lines[0].replace(",train", ",test").replace('",', f'{change}",', 1)]
    with pytest.raises(SpecError, match=r"data.split leaks: the same text stands in two parts: line 2 .*line 8"):
        _load(file=_csv(tmp_path / "leak.csv", lines, "text,label,split"))


def test_the_same_text_under_two_classes_is_refused(tmp_path):
    lines = [f'"{text}",{label}' for text, label in _rows()]
    lines.append(lines[0].replace("bone", "heart"))
    with pytest.raises(SpecError, match=r"same text under two classes: line 2 .* is bone and line 14 .* is heart"):
        _load(file=_csv(tmp_path / "both.csv", lines))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"text,label\n", "holds no notes"),
        (b"text,kind\nabc,1\n", "data.label_column = 'label' is not a column"),
        (b"text,label\nabc,a\nd\xe9f,b\n", r"byte 18 \(0xe9\): the text is not UTF-8"),
        (b"text,label\nabc,a,x\n", r"line 2: 3 values where the header has 2"),
        (b'text,label\n"abc,a\n', r"line 2: not readable as CSV"),
        (b"text,label\nabc,a\n...,b\n", r"data.text has no words in line 3"),
        (b"text,label\nabc,a\nabe,b\nabd,\n", r"label is empty in line 4"),
        (b"text,label\nabc,a\nabd,a\n", r"at least two are needed"),
        (b"text,label,Patient ID\nabc,a,1\nabd,b,2\n", r"name it patient_id"),
        (b"text,label,text\nabc,a,1\n", r"columns twice: text"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_with_its_place(tmp_path, content, message):
    place = tmp_path / "notes.csv"
    place.write_bytes(content)
    with pytest.raises(SpecError, match=message) as error:
        _load(file=str(place))
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_a_folder_is_said_with_its_place(tmp_path):
    with pytest.raises(SpecError, match="no such directory"):
        _load(folder=str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match="holds no folders"):
        _load(folder=str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SpecError, match=r"1.txt', byte 3 \(0xe9\): the text is not UTF-8"):
        _load(folder=str(tmp_path))
    with pytest.raises(SpecError, match="both given"):
        _load(folder=str(tmp_path), file="x.csv")


@pytest.mark.parametrize("names", [["Orthopedic", "Heartology"], ["Orthopedic", "Orthopedic"]])
def test_unknown_and_doubled_specialties_are_refused(titer_data, names):
    del titer_data
    with pytest.raises(SpecError, match=r"data\.specialties"):
        _load(specialties=names)


def _outcome(place):
    try:
        for note in read_csv(place, "data.file", "transcription", "medical_specialty"):
            words_of(note.text)
    except SpecError as error:
        return "refused" if "\n" not in str(error) else "in two lines"
    return "read"


def test_no_mutation_of_a_real_file_crashes_the_reader(titer_data, tmp_path):
    """A thousand: bytes changed, cut out, doubled; plain and zipped."""
    whole = gzip.decompress((titer_data / "clinical_text" / "mtsamples.csv.gz").read_bytes())
    whole = whole[: whole.rindex(b"\n", 0, 12000) + 1]
    rng = random.Random(0)
    seen = {"read": 0, "refused": 0}
    for i in range(1000):
        content = bytearray(gzip.compress(whole, 1) if i % 2 else whole)
        for _ in range(rng.choice([1, 1, 3, 20])):
            at, kind = rng.randrange(max(1, len(content))), rng.randrange(4)
            if kind == 0 and content:
                content[at % len(content)] = rng.choice(b'\x00\xff",\n\r\x80a')
            elif kind == 1:
                del content[at : at + rng.randrange(1, 50)]
            elif kind == 2:
                content[at:at] = content[at : at + 30]
            else:
                del content[at:]
        place = tmp_path / ("fuzz.csv.gz" if i % 2 else "fuzz.csv")
        place.write_bytes(content)
        seen[_outcome(place)] += 1
    assert min(seen.values()) > 50, seen
    assert sum(seen.values()) == 1000


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(copies):
        place = tmp_path / f"{copies}.csv"
        _csv(place, [f'"{text} {"word " * 300}",{label}' for _ in range(copies) for text, label in _rows(50)])
        tracemalloc.start()
        for _ in read_csv(place, "data.file", "text", "label"):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(40) < 1.5 * peak(4)


def test_words_are_in_lower_case_with_numbers_whole():
    assert words_of("The 4.7-cm mass (x2), T12/L1 isn't SOFT.") == [
        "the",
        "4.7-cm",
        "mass",
        "x2",
        "t12/l1",
        "isn't",
        "soft",
    ]


@pytest.mark.parametrize("word", ["examination", "noted", "with", "appears", "abdominal"])
def test_slips_keep_the_first_letter_and_change_one_place(word):
    for slip in [*typos(word), *swaps(word)]:
        assert slip != word
        assert slip[0] == word[0]
        assert abs(len(slip) - len(word)) <= 1
    assert all(sorted(one) == sorted(word) for one in swaps(word))


@pytest.mark.parametrize("word", ["a", "the", "4.7", "t12", "can't", "x-ray"])
def test_short_words_and_numbers_have_no_slips(word):
    assert typos(word) == swaps(word) == []


def test_what_turns_a_finding_round_is_protected():
    words = ["no", "without", "left", "severe", "appendicitis", "12", "aspirin", "metoprolol", "walked", "stomach"]
    assert protected(words, ["stomach ache"]) == set(words) - {"walked"}


def test_neighbours_stand_in_the_same_places():
    rng = random.Random(0)
    others = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(12) for j in range(12)]
    notes = []
    for _ in range(400):
        middle = rng.choice(["wanders", "strolls"])
        notes.append(
            [*rng.choices(others, k=6), "slowly", "homeward", middle, "across", "meadows", *rng.choices(others, k=6)]
        )
    table = synonyms(notes, set())
    assert "strolls" in table["wanders"]
    assert "wanders" in table["strolls"]


def test_same_texts_and_groups_are_joined():
    long = [f"w{i}" for i in range(200)]
    other = [f"v{i}" for i in range(200)]
    texts = [long, other, [*long[:-1], "end"], other[:100] + long[:100]]
    assert same_texts([signature(words) for words in texts]) == [0, 1, 0, 3]
    assert joined([["a", "b", "a", "c"], [1, 2, 3, 2]]) == [0, 1, 0, 1]
