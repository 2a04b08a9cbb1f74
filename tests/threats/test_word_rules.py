"""Notes: what a word may become, and how many may."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from titer.core.errors import Incompatible
from titer.core.threat import Threat
from titer.threats.balls import L0, ball
from titer.threats.goals import AnyError
from titer.threats.words import SHARE, ShareOfWords, Substitutes, candidates, changes_allowed

WORDS = 9
# Word 1 may become 5 or 6, word 2 may become 7, word 3 is protected, word 4 may become 8 or 1.
TABLE = torch.tensor([[0, 0], [5, 6], [7, 0], [0, 0], [8, 1], [0, 0], [0, 0], [0, 0], [0, 0]])
RULE = Substitutes(table=TABLE, text="substitutes")
NOTE = torch.tensor([[1.0, 2, 3, 4, 1, 1, 2, 2, 3, 4, 0, 0]])

notes = st.lists(st.floats(-3, 12, width=32), min_size=12, max_size=12).map(lambda row: torch.tensor([row]))
ids = st.lists(st.integers(0, WORDS - 1), min_size=12, max_size=12).map(lambda row: torch.tensor([row]).float())


def _threat(eps, unit=SHARE, domain=(RULE,)):
    budget = ball("l0", eps, torch.tensor(1.0), unit)
    return Threat(family="words", budget=budget, domain=domain, goal=AnyError())


@given(notes | ids)
def test_what_is_projected_is_allowed_and_changes_no_other_word(x_adv):
    fixed = RULE.project(x_adv, NOTE)
    assert bool(RULE.contains(fixed, NOTE))
    assert bool(((fixed == x_adv) | (fixed == NOTE)).all())
    assert torch.equal(RULE.project(fixed, NOTE), fixed)
    assert bool((fixed[0, 10:] == 0).all()), "padding stays"
    assert bool((fixed > 0).eq(NOTE > 0).all()), "no word is lost"


@given(ids, st.floats(0.5, 100))
def test_a_threat_projects_into_rule_and_budget_at_once(x_adv, eps):
    threat = _threat(eps)
    fixed = threat.project(x_adv, NOTE)
    assert bool(threat.contains(fixed, NOTE))


@pytest.mark.parametrize(
    ("place", "word", "allowed"),
    [
        (0, 5, True),
        (0, 6, True),
        (0, 7, False),
        (2, 5, False),
        (3, 1, True),
        (10, 1, False),
        (0, 0, False),
        (0, 5.5, False),
    ],
)
def test_each_word_has_its_own_substitutes(place, word, allowed):
    x_adv = NOTE.clone()
    x_adv[0, place] = word
    assert bool(RULE.contains(x_adv, NOTE)) == allowed


def test_clean_notes_must_be_words_of_the_lexicon():
    wrong = torch.tensor([[1.0, 2.5], [1.0, 99.0], [-1.0, 2.0], [1.0, 2.0]])
    assert RULE.contains(wrong, wrong).tolist() == [False, False, False, True]


@pytest.mark.parametrize(("eps", "words"), [(5, 0), (9.9, 0), (10, 1), (29, 2), (30, 3), (100, 10)])
def test_a_share_is_rounded_down_to_whole_words_of_the_note(eps, words):
    budget = ShareOfWords(eps=eps, scale=torch.tensor(1.0))
    assert budget.radius(NOTE).tolist() == [words]
    x_adv = NOTE.clone()
    x_adv[0, :words] += 1
    assert bool(budget.contains(x_adv, NOTE))
    x_adv[0, words % 10] += 1
    assert bool(budget.contains(x_adv, NOTE)) == (words == 10)


def test_a_longer_note_may_change_more_words():
    budget = ShareOfWords(eps=10, scale=torch.tensor(1.0))
    x = torch.ones(2, 60)
    x[0, 20:] = 0
    assert budget.radius(x).tolist() == [2, 6]
    assert (budget.project(x + 1, x) != x).sum(1).tolist() == [2, 6]
    assert changes_allowed(_threat(10), x).tolist() == [2, 6]


def test_words_are_counted_by_the_usual_ball():
    budget = ball("l0", 3, torch.tensor(1.0), "words")
    assert isinstance(budget, L0)
    assert budget.describe() == "at most 3 words change"
    assert changes_allowed(_threat(3, "words"), NOTE).tolist() == [3]


def test_candidates_obey_every_rule_of_the_threat():
    narrow = Substitutes(table=torch.where(TABLE == 6, 6, 0), text="narrow")
    both = candidates(_threat(10, domain=(RULE, narrow)), NOTE)
    assert sorted(set(both.flatten().tolist())) == [0, 6]
    alone = candidates(_threat(10), NOTE)
    assert torch.equal(alone[0], TABLE[NOTE[0].long()])


def test_a_rule_says_which_table_it_is():
    other = Substitutes(table=TABLE.flip(1), text="substitutes")
    assert RULE.describe() != other.describe()


def test_no_gradient_steps_from_word_to_word():
    budget = ShareOfWords(eps=10, scale=torch.tensor(1.0))
    for step in (lambda: budget.ascend(NOTE, NOTE, 1.0), lambda: budget.sample(NOTE, None)):
        with pytest.raises(Incompatible, match="hotflip"):
            step()
