"""A small transformer for notes of words, trained from scratch with pieces of words of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from titer.core.extras import need
from titer.core.lexicon import Lexicon
from titer.core.plugins import Count, network
from titer.core.protocols import Network
from titer.networks._latent import latent_vectors, of_pieces

if TYPE_CHECKING:
    from torch import Tensor, nn

_UNKNOWN = "[unknown]"
_END = "_"
"""Ends each word. The library's own suffix is numbered in the order of a hash, which differs from run to run."""

_MOST_PIECES = 8
"""Pieces of a word that are read; the rest of a longer one is not."""

_ATTENDED = 0.1
"""Weight of what the attention read beside the words' own answer: it learns a few hundred notes by heart before those
have learned what the topics say."""


@network(
    "note-transformer",
    paper="Vaswani et al. 2017, arXiv:1706.03762, section 3; pieces: Sennrich et al. 2016, arXiv:1508.07909",
)
def note_transformer(
    *,
    width: Annotated[int, Field(ge=8, multiple_of=4)] = 64,
    layers: Count = 1,
    pieces: Annotated[int, Field(ge=100)] = 4000,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    learned_words: bool = False,
) -> Network:
    """Transformer of pre-norm blocks with four heads over the words of a note, trained from scratch.

    A word's vector is the mean over its pieces (byte-pair encoding, learned on the training notes), which are the
    notes' latent semantic vectors; the answer is read off the mean of the words' own vectors, and off the mean of the
    last layer over the note's words beside it: what each word says alone need not be learned through the attention.

    Args:
        width: of the vectors.
        layers: blocks of attention and perceptron.
        pieces: how many pieces are learned, at most.
        dropout: share of values dropped in training.
        word_dropout: share of a note's words that are hidden in training, each time other ones.
        learned_words: train the vectors of pieces on from there, which a few hundred notes are learned by heart with.
    """

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        return _network(shape[-1], classes, width, layers, pieces, dropout, word_dropout, learned_words=learned_words)

    return build


def pieces_of(lexicon: Lexicon, notes: Tensor, most: int) -> Tensor:
    """Return int64[V, 8], the pieces of each word; learned by byte-pair encoding on notes float32[N, L] alone.

    Piece 0 is none, piece 1 a letter that the notes never held.
    """
    import torch

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would not survive a fork
    tokenizers = need("tokenizers", "text")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=most, special_tokens=["[none]", _UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator((_text(lexicon, note) for note in notes), trainer)
    table = torch.zeros(len(lexicon), _MOST_PIECES, dtype=torch.int64)
    for word, found in enumerate(tokenizer.encode_batch([word and word + _END for word in lexicon])):
        ids = found.ids[:_MOST_PIECES]
        table[word, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return table


def _text(lexicon: Lexicon, note: Tensor) -> str:
    return " ".join(lexicon[int(word)] + _END for word in note if word > 0)


def _network(
    length: int,
    classes: int,
    width: int,
    layers: int,
    pieces: int,
    dropout: float,
    word_dropout: float,
    *,
    learned_words: bool,
) -> nn.Module:
    import torch
    from torch import nn
    from torch.nn import functional

    from titer.core.lexicon import WordEmbedding

    class Block(nn.Module):
        """Attention with four heads, then a perceptron, each around a normalised input (pre-norm)."""

        def __init__(self) -> None:
            super().__init__()
            self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
            self.queries, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            last = nn.Linear(2 * width, width)
            self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)
            self.drop = nn.Dropout(dropout)
            with torch.no_grad():  # a block adds little at the start, so that the words' own topics are heard
                self.out.weight.mul_(0.1)
                last.weight.mul_(0.1)

        def forward(self, h: Tensor, there: Tensor) -> Tensor:
            q, k, v = self.queries(self.before_attention(h)).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None, :])
            h = h + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
            grown: Tensor = h + self.drop(self.perceptron(self.before_perceptron(h)))
            return grown

    class NoteTransformer(nn.Module):
        """Logits [N, K] of notes float32[N, L] of word ids."""

        def __init__(self) -> None:
            super().__init__()
            self.words = WordEmbedding(pieces, width, fixed=not learned_words)
            self.places = nn.Embedding(length, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm, self.norm_of_words = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
            self.drop = nn.Dropout(dropout)
            self.answer, self.answer_of_words = nn.Linear(width, classes), nn.Linear(width, classes)
            with torch.no_grad():  # places must not drown the words' topics at the start
                self.places.weight.mul_(0.02)

        def read(self, lexicon: Sequence[str], notes: Tensor) -> None:
            """Learn the pieces of words, and vectors to begin at, from the training notes."""
            table = pieces_of(lexicon, notes, pieces)
            self.words.tell(table, of_pieces(latent_vectors(notes, len(lexicon), width), table, pieces))

        def forward(self, x: Tensor) -> Tensor:
            if self.training and word_dropout:
                x = x.masked_fill(torch.rand(x.shape, device=x.device) < word_dropout, 0.0)
            there = x > 0
            # A note without words is read as one padding word: attention to nothing would be no number.
            seen = there | (~there.any(1, keepdim=True) & (torch.arange(x.shape[1], device=x.device) == 0))
            vectors = self.words(x)
            h = self.drop(vectors + self.places.weight[: x.shape[1]])
            for block in self.blocks:
                h = block(h, seen)
            # Normalised after the mean, as a word that says little has a short vector and must keep its small say; over
            # the batch, as what all notes have in common would fill a note's own norm.
            read, said = ((part * seen.unsqueeze(2)).sum(1) / seen.sum(1, keepdim=True) for part in (h, vectors))
            read, said = self.drop(self.norm(read)), self.drop(self.norm_of_words(said))
            logits: Tensor = _ATTENDED * self.answer(read) + self.answer_of_words(said)
            return logits

    return NoteTransformer()
