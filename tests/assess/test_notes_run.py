"""A whole assessment of notes: from the user's CSV file to the report with marked notes; and plans that are refused."""

import json
import random

import pandas as pd
import pytest
from typer.testing import CliRunner

from titer.cli.main import app
from titer.core.errors import SpecError

PLAN = """
name = "wards"
trials = 1
seed = 7
attacks = ["hotflip", "greedy-substitution", "jsma"]

[data]
name = "clinical-notes"
file = "notes.csv"
words = 24

[training]
epochs = 12
batch_size = 16
learning_rate = 0.01

[[models]]
label = "reader"
network = { name = "note-transformer", width = 8, pieces = 300, dropout = 0, word_dropout = 0, learned_words = true }

[[threats]]
norm = "l0"
eps = [10, 40]
unit = "% of words"
family = "words"

[[threats]]
norm = "l0"
eps = [3]
unit = "words"
family = "typos"
rules = ["typos"]

[[defenses]]
label = "hardened"
defense = { name = "adversarial-training", norm = "l0", eps = 40, unit = "% of words", attack = "hotflip", epochs = 1 }

[[defenses]]
label = "noise"
defense = { name = "randomized-smoothing", sigma = 1, unit = "words" }
"""
OWN = {"heart": "wheezing gasping panting fainting", "bone": "limping aching bending twisting"}
SAID_OF_ALL = "yesterday the person arrived walking talking looking feeling quite somewhat rather entirely"


def _write(folder, plan=PLAN):
    rng = random.Random(0)
    lines = ["text,label"]
    for i in range(90):
        label = "heart" if i % 2 else "bone"
        words = rng.choices(SAID_OF_ALL.split(), k=14) + rng.choices(OWN[label].split(), k=3)
        rng.shuffle(words)
        lines.append(f"{' '.join([*words, str(i)])},{label}")
    (folder / "notes.csv").write_text("\n".join(lines) + "\n")
    (folder / "plan.toml").write_text(plan)
    return folder / "plan.toml"


def _run(path, *options):
    return CliRunner().invoke(app, ["assess", str(path), *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes")
    done = _run(_write(folder), "--out", str(folder / "run"), "--workers", "1")
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture(scope="module")
def outcomes(run):
    return pd.read_parquet(run / "outcomes.parquet")


def test_every_judged_note_keeps_the_rules(outcomes):
    assert not outcomes["put_back"].any()
    typos = outcomes[(outcomes["threat_family"] == "typos") & (outcomes["attack"] != "none")]
    assert typos["distance_l0"].max() <= 3
    shares = outcomes[outcomes["threat"] == "words 10 % of words"]
    assert shares["distance_l0"].max() <= 1  # of 18 words


def test_attacks_win_and_a_white_box_no_less(outcomes):
    plain = outcomes[(outcomes["defense"] == "none") & (outcomes["source"] == "none")]
    largest = plain[plain["threat"] == "words 40 % of words"]
    won = largest.groupby("attack")["won"].mean()
    assert won["hotflip"] > 0.3
    assert won["hotflip"] >= won["greedy-substitution"] > 0


def test_what_does_not_know_words_is_skipped_with_its_reason(run):
    reasons = {
        (one["source"], one["attack"]): one["reason"] for one in json.loads((run / "skipped.json").read_text())["cells"]
    }
    assert "takes values for numbers" in reasons["noise", "hotflip"]
    assert "not differentiable" in reasons["none", "jsma"]


def test_the_report_shows_marked_notes(run):
    page = (run / "report.html").read_text()
    assert '<p class="marked">' in page
    assert "<ins>" in page
    assert "% of the words" in page


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'norm = "l0"\neps = [3]\nunit = "words"',
            'norm = "linf"\neps = [3]\nunit = "words"',
            "words are counted, with 'l0'",
        ),
        ("eps = [10, 40]", "eps = [10, 140]", "at most 100"),
        (
            'unit = "words"\nfamily = "typos"',
            'unit = "genes"\nfamily = "typos"',
            "it counts 'words' or '% of words' or 'values'",
        ),
        ("eps = [3]", "eps = [2.5]", "whole numbers, 1 to 24"),
        ('rules = ["typos"]', 'rules = ["typo"]', "did you mean 'typos'"),
        ("words = 24", 'words = 24\nprotected = "none.txt"', "none.txt': no such file"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(tmp_path, old, new, message):
    assert old in PLAN
    done = _run(_write(tmp_path, PLAN.replace(old, new)), "--out", str(tmp_path / "run"))
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
