"""A note marked up: changed words beside their old ones, snippets of long notes, text of the data escaped."""

import json

import numpy as np

from titer.report.drawings import drawing
from titer.report.examples import Example


def _example(before, after):
    zero = np.zeros(1, dtype=int)
    meta = {"kind": "text", "written": {"clean": [before], "adversarial": [after]}}
    return Example(
        clean=zero, adversarial=zero, label=zero, clean_prediction=zero, adversarial_prediction=zero,
        sample_id=["note-1"], meta=json.loads(json.dumps(meta)),
    )  # fmt: skip


def _drawn(before, after):
    found = drawing(_example(before, after), 0)
    assert found is not None
    return found


def test_old_words_are_struck_out_and_new_ones_stand_beside_them():
    found = _drawn(["chest", "pain", "noted"], ["chest", "pain", "ntoed"])
    assert str(found.markup) == '<p class="marked">chest pain <del>noted</del> <ins>ntoed</ins></p>'
    assert found.note == "1 of 3 words changed"


def test_of_a_long_note_the_words_around_each_change_are_shown():
    before = [f"w{i}" for i in range(400)]
    after = [*before[:50], "x50", *before[51:300], "x300", *before[301:]]
    text = str(_drawn(before, after).markup)
    assert text.count("…") == 3
    assert "w44 " in text
    assert "w43 " not in text
    assert "<ins>x300</ins> w301" in text
    assert "w399" not in text


def test_an_unchanged_long_note_shows_its_beginning():
    words = [f"w{i}" for i in range(400)]
    text = str(_drawn(words, words).markup)
    assert "w119" in text
    assert "w121" not in text


def test_words_of_the_data_are_escaped():
    text = str(_drawn(["<script>", "a&b"], ["<script>", "<b>"]).markup)
    assert "<script>" not in text
    assert "&lt;script&gt; <del>a&amp;b</del> <ins>&lt;b&gt;</ins>" in text
