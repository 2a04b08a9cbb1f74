"""Attacks on words: against models whose best substitutions are known."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titer.assess.judge import attack_rows
from titer.core.errors import Incompatible
from titer.core.lexicon import WordEmbedding
from titer.core.model import network_model
from titer.core.plugins import make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.words import Substitutes

VALUES = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0, -2.0, -3.0, 0.5])
"""What each word says for class 0."""
TABLE = torch.tensor([[0, 0], [4, 3], [5, 0], [6, 7], [0, 0], [0, 0], [0, 0], [0, 0]])


class Sum(nn.Module):
    """The sum of what the words say."""

    def __init__(self):
        super().__init__()
        self.words = WordEmbedding(len(VALUES), 1)
        self.words.tell(torch.arange(len(VALUES)).unsqueeze(1))
        with torch.no_grad():
            self.words.weight.copy_(VALUES.unsqueeze(1))

    def forward(self, x):
        total = self.words(x).sum(1)
        return torch.cat([total, -total], 1)


MODEL = network_model("sum", Sum(), lambda x: x, {})
ATTACKS = ["hotflip", {"name": "hotflip", "beam": 1}, {"name": "hotflip", "at_once": 2}, "greedy-substitution"]
every_attack = pytest.mark.parametrize("spec", ATTACKS, ids=str)


def _threat(eps, *rules, unit="words"):
    budget = ball("l0", eps, torch.tensor(1.0), unit)
    return Threat(family="words", budget=budget, domain=rules or (Substitutes(table=TABLE, text="t"),), goal=AnyError())


def _attacked(spec, x, threat, model=MODEL):
    return attack_rows(make_attack(spec), model, x, torch.zeros(len(x), dtype=torch.int64), threat)


@every_attack
@pytest.mark.parametrize(
    ("note", "words", "won"),
    [
        ([1, 0, 0], 1, True),  # 3 becomes -1
        ([1, 1, 0], 1, False),  # 6 becomes 2
        ([1, 1, 0], 2, True),
        ([1, 2, 3], 2, True),  # -4 each for words 1, 2 and 3: of 6 two leave -2
        ([1, 2, 3], 1, False),
        ([4, 1, 3], 1, True),
        ([7, 7, 7], 3, False),  # protected
    ],
)
def test_it_wins_exactly_where_the_best_substitutes_win(spec, note, words, won):
    result = _attacked(spec, torch.tensor([note]).float(), _threat(words))
    assert result.verdict.won.tolist() == [won]


@every_attack
def test_a_note_is_left_as_soon_as_it_is_won(spec):
    x = torch.tensor([[1.0, 7, 0, 0, 0, 0], [1, 1, 7, 0, 0, 0], [1, 4, 4, 2, 2, 2]])
    result = _attacked(spec, x, _threat(6))
    assert result.verdict.won.all()
    changed = (result.proposal.x_adv != x).sum(1).tolist()
    assert changed[:2] == [1, 2]
    assert changed[2] < 4


@every_attack
def test_only_what_every_rule_allows_is_tried(spec):
    """Word 1 may become 3 alone: -2 and not -4."""
    narrow = Substitutes(table=torch.where(TABLE == 3, 3, 0), text="narrow")
    threat = _threat(2, Substitutes(table=TABLE, text="t"), narrow)
    result = _attacked(spec, torch.tensor([[1.0, 0, 0], [1, 5, 0]]), threat)
    assert result.verdict.won.tolist() == [False, True]
    assert result.proposal.x_adv[1].tolist() == [3.0, 5.0, 0.0]


@every_attack
def test_a_share_of_the_note_is_kept(spec):
    """Four words and half of them: two changes; eight words, four."""
    x = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0], [1] * 8])
    result = _attacked(spec, x, _threat(50, unit="% of words"))
    assert (result.proposal.x_adv != x).sum(1).tolist() == [2, 4]
    assert not result.proposal.put_back.any()


def test_hotflip_sees_no_less_than_greedy_substitution(notes, note_threat):
    right = notes.model.logits(notes.test.x).argmax(1) == notes.test.y
    x, y = notes.test.x[right], notes.test.y[right]
    for eps in (1, 2, 3):
        won = [
            float(attack_rows(make_attack(name), notes.model, x, y, note_threat(eps)).verdict.won.float().mean())
            for name in ("hotflip", "greedy-substitution")
        ]
        assert won[0] >= won[1]
        assert won[0] > 0


def test_hotflip_asks_a_randomised_model_at_many_draws(notes, note_threat):
    """A model that answers for the class by chance alone is not beaten by one lucky draw."""
    asked = []

    def draw(rng):
        def logits(x):
            asked.append(len(x))
            return notes.model.logits(x) + torch.randn((len(x), 2), generator=rng)

        return logits

    random = replace(notes.model, draw=draw)
    found = make_attack("hotflip")(random, notes.test.x[:3], notes.test.y[:3], note_threat(2), rng=torch.Generator())
    assert len(asked) > 16
    assert bool(note_threat(2).contains(found, notes.test.x[:3]).all())


def test_hotflip_needs_a_network_that_looks_words_up(notes, note_threat):
    plain = replace(notes.model, net=nn.Linear(2, 2))
    with pytest.raises(Incompatible, match="WordEmbedding"):
        make_attack("hotflip")(plain, notes.test.x, notes.test.y, note_threat(2), rng=torch.Generator())


@pytest.mark.parametrize("name", ["hotflip", "greedy-substitution"])
def test_an_input_without_words_is_refused(name, images, image_threat):
    with pytest.raises(Incompatible, match="needs notes"):
        make_attack(name)(images.model, images.test.x, images.test.y, image_threat("l0", 3), rng=torch.Generator())
