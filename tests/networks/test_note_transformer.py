"""The transformer for notes: pieces of words, padding, and a gradient at its words."""

import pytest
import torch

from titer.core.errors import ContractError
from titer.core.lexicon import ReadsWords, WordEmbedding, embedding_of
from titer.core.plugins import make
from titer.networks._latent import latent_vectors, of_pieces
from titer.networks.note_transformer import pieces_of
from titer.training.loop import fresh

WORDS = "the patient has chest pain and no fever today examination was normal examinatoin qqq"
LEXICON = ("", *WORDS.split())
NOTES = torch.tensor([[1, 2, 3, 4, 5, 0, 0], [1, 10, 11, 12, 9, 0, 0], [6, 7, 8, 0, 0, 0, 0]]).float()


def _net(**settings):
    torch.manual_seed(0)
    net = make("networks", {"name": "note-transformer", "width": 8, "pieces": 200, **settings})((7,), 3)
    net.read(LEXICON, NOTES)
    return net.eval()


def test_it_answers_for_notes_of_any_length():
    net = _net(layers=2)
    assert isinstance(net, ReadsWords)
    assert net(NOTES).shape == (3, 3)
    assert bool(net(torch.zeros(2, 7)).isfinite().all()), "a note without words"


def test_padding_says_nothing():
    net, longer = _net(), NOTES.clone()
    assert torch.allclose(net(NOTES[2:]), net(longer)[2:], atol=1e-6)
    hidden = NOTES[:1].clone()
    hidden[0, 2] = 0
    assert not torch.allclose(net(hidden), net(NOTES[:1]))


def test_the_order_of_words_matters():
    net = _net()
    turned = NOTES[:1].clone()
    turned[0, :5] = turned[0, :5].flip(0)
    assert not torch.allclose(net(turned), net(NOTES[:1]))


def test_a_typing_error_shares_pieces_with_its_word():
    table = pieces_of(LEXICON, NOTES, 60)
    whole, typo = (set(table[LEXICON.index(w)].tolist()) - {0} for w in ("examination", "examinatoin"))
    assert whole != typo
    assert whole & typo
    assert 1 in table[LEXICON.index("qqq")].tolist(), "a letter that no note held is unknown"
    assert table[0].tolist() == [0] * 8


def test_pieces_are_learned_from_the_notes_given_and_repeat():
    tables = [pieces_of(LEXICON, NOTES, 100) for _ in range(10)]
    assert all(torch.equal(tables[0], table) for table in tables)
    assert not torch.equal(pieces_of(LEXICON, NOTES, 100), pieces_of(LEXICON, NOTES[2:], 100))


def test_weights_hold_the_pieces():
    state = _net().state_dict()
    assert state["words.table"].shape == (len(LEXICON), 8)


def test_its_words_have_a_gradient():
    net = _net()
    layer = embedding_of(net)
    assert isinstance(layer, WordEmbedding)
    found = []
    handle = layer.register_forward_hook(lambda _l, _g, out: found.append(out.detach().requires_grad_()) or found[-1])
    out = net(NOTES)
    handle.remove()
    slope = torch.autograd.grad(out[:, 0].sum(), found[0])[0]
    assert bool((slope[0, :5] != 0).any(1).all())
    assert bool((slope[0, 5:] == 0).all()), "padding has no say"


def test_a_network_that_was_told_no_words_says_so():
    net = make("networks", "note-transformer")((7,), 3)
    with pytest.raises(ContractError, match="before it was told the words"):
        net(NOTES)


def test_word_vectors_begin_at_the_topics_of_the_notes():
    """Words of the same notes begin near one another, words of other notes at right angles."""
    notes = torch.tensor([[1, 2, 3, 0], [2, 1, 3, 0], [4, 5, 6, 0], [5, 4, 6, 0]]).float()
    vectors = latent_vectors(notes, 8, 2)
    near = torch.nn.functional.cosine_similarity
    assert float(near(vectors[1], vectors[2], 0)) > 0.99
    assert abs(float(near(vectors[1], vectors[5], 0))) < 0.01
    assert float(vectors[[0, 7]].abs().sum()) == 0.0
    pieces = of_pieces(vectors, torch.tensor([[0, 0], [2, 0], [2, 3], [3, 0], [4, 0], [4, 0], [4, 0], [5, 0]]), 6)
    assert torch.allclose(pieces[2], (vectors[1] + vectors[2]) / 2)
    assert float(pieces[[0, 1, 5]].abs().sum()) == 0.0


def test_weights_drawn_anew_begin_there_again():
    net = _net()
    before = net.words.weight.clone()
    with torch.no_grad():
        net.words.weight.zero_()
    again = fresh(net, 3)
    assert torch.equal(again.words.weight, before)


def test_vectors_of_words_are_moved_by_training_only_where_they_are_learned():
    moved = {name for name, _ in _net(learned_words=True).named_parameters()}
    assert moved - {name for name, _ in _net().named_parameters()} == {"words.weight"}
    assert "words.weight" in _net().state_dict()
