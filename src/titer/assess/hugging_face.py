"""Classifiers of sequences as the library transformers keeps them: read from a folder, as networks of words."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from titer.core.errors import SpecError
from titer.core.extras import need
from titer.core.lexicon import Lexicon, WordEmbedding

_MOST_PIECES = 12
"""Pieces of a word that are read; the rest of a longer one is not."""

_PART = 16
"""Notes that go through the network at a time: attention over hundreds of pieces is what its memory goes to."""

_CLOSE = 1e-3
_UNNAMED = "LABEL_"


class Reading(NamedTuple):
    """The words of a data set of notes, the training notes float32[N, L], and the names of the classes."""

    lexicon: Lexicon
    notes: Tensor
    classes: tuple[str, ...]


def open_classifier(path: Path, reading: Reading | None, where: str) -> nn.Module:
    """Return the classifier of a folder as a network of notes float32[N, L] of word ids that begins with their vectors.

    Nothing is downloaded, unpickled, or run that the folder brings: weights are .safetensors files, and the
    architecture is one of the library's own. Each word is cut into pieces by itself, with a space before it.

    Raises:
        SpecError: the data are no notes, the folder lacks something, its classes are others, or its network does not
            answer by the vectors of pieces as it does by their numbers.
    """
    if reading is None:
        raise SpecError(f"{where} = {str(path)!r} is not allowed here: it reads text, and these data are no notes")
    absent = [name for name in ("config.json", "*.safetensors") if not any(path.glob(name))]
    if absent:
        raise SpecError(
            f"{where} = {str(path)!r} holds no {' and no '.join(absent)}: allowed is a folder with a classifier of "
            "sequences, its tokenizer, and weights as .safetensors"
        )
    library = need("transformers", "huggingface")
    tokenizer, body = _opened(library, path, where)
    order = _order(body.config, reading.classes, f"{where} = {str(path)!r}")
    net = _Classifier(body, *_pieces(tokenizer, reading.lexicon), limit=_limit(tokenizer, body.config), order=order)
    net.eval()
    _same_answers(net, body, reading.notes[:2].cpu(), f"{where} = {str(path)!r}")
    body.set_input_embeddings(nn.Embedding(1, net.words.weight.shape[1]))  # its own vectors are in `words` now
    return net


def _opened(library: Any, path: Path, where: str) -> tuple[Any, Any]:
    """Return tokenizer and network; whatever the library raises is one line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would not survive a fork
    library.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = library.AutoTokenizer.from_pretrained(path, **offline)
            body, told = library.AutoModelForSequenceClassification.from_pretrained(
                path, **offline, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # noqa: BLE001 - a damaged folder makes the library raise a dozen kinds of error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise SpecError(f"{where} = {str(path)!r} cannot be read by transformers: {reason}") from None
    missing = sorted(told["missing_keys"])
    if missing:
        raise SpecError(
            f"{where} = {str(path)!r} holds no trained classifier: its weights lack {', '.join(missing[:3])}"
            f"{' ...' if len(missing) > 3 else ''}"
        )
    return tokenizer, body


def _order(config: Any, classes: Sequence[str], what: str) -> list[int]:
    """Return the place of each class in the network's answer: by name, or as they stand where they have no names.

    Raises:
        SpecError: another number of classes, or other names.
    """
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if len(names) != len(classes) and len(names) != 1:
        raise SpecError(f"{what} knows {len(names)} classes ({', '.join(names[:6])}): the data have {len(classes)}")
    if all(name.startswith(_UNNAMED) for name in names):
        return list(range(len(names)))
    by_name = {name.casefold(): i for i, name in enumerate(names)}
    if set(by_name) != {name.casefold() for name in classes}:
        raise SpecError(
            f"{what} calls its classes {', '.join(names)}: the data call them {', '.join(classes)}; write the data's "
            "names into id2label of its config.json"
        )
    return [by_name[name.casefold()] for name in classes]


def _limit(tokenizer: Any, config: Any) -> int:
    """Return the most pieces that the network reads, those at both ends included."""
    told = int(min(tokenizer.model_max_length, 2**31))
    places = getattr(config, "max_position_embeddings", None) or 2**31
    # Of RoBERTa's kind the first places belong to padding; its tokenizer knows, unless nobody told it.
    return min(told, places) if told < 2**30 else places - 1 - (getattr(config, "pad_token_id", None) or 0)


def _pieces(tokenizer: Any, lexicon: Lexicon) -> tuple[Tensor, Tensor, Tensor]:
    """Return int64[V, P], the pieces of each word plus 1, and what stands before and after every text."""
    cut = tokenizer([f" {word}" for word in lexicon], add_special_tokens=False)["input_ids"]
    cut[0] = []
    most = min(_MOST_PIECES, max(1, *map(len, cut)))
    table = torch.zeros(len(lexicon), most, dtype=torch.int64)
    for word, ids in enumerate(cut):
        table[word, : len(ids[:most])] = torch.tensor(ids[:most], dtype=torch.int64) + 1
    plain = tokenizer(" a", add_special_tokens=False)["input_ids"]
    whole = tokenizer(" a")["input_ids"]
    at = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return table, torch.tensor(whole[:at], dtype=torch.int64), torch.tensor(whole[at + len(plain) :], dtype=torch.int64)


class _Classifier(nn.Module):
    """Logits [N, K] of notes float32[N, L] of word ids, by the vectors of the pieces of their words."""

    start: Tensor
    end: Tensor

    def __init__(
        self, body: Any, table: Tensor, start: Tensor, end: Tensor, *, limit: int, order: Sequence[int]
    ) -> None:
        super().__init__()
        with torch.no_grad():
            own = body.get_input_embeddings()
            vectors = own(torch.arange(own.num_embeddings, device=own.weight.device))
        self.words = WordEmbedding(len(vectors) + 1, vectors.shape[1], apart=True)
        self.words.tell(table)
        with torch.no_grad():
            self.words.weight[1:] = vectors
        self.body = body
        self.limit, self.order = limit, list(order)
        self.register_buffer("start", start)
        self.register_buffer("end", end)

    def forward(self, x: Tensor) -> Tensor:
        vectors, there = self.words(x), self.words.pieces(x) > 0
        parts = zip(vectors.split(_PART), there.split(_PART), strict=True)
        return torch.cat([self._part(*one) for one in parts])[:, self.order]

    def _part(self, vectors: Tensor, there: Tensor) -> Tensor:
        # The pass is run again for its gradient: what every layer keeps of a batch of notes would fill the memory.
        known = torch.is_grad_enabled() and vectors.requires_grad
        run: Callable[..., Any] = self._answered
        out: Tensor = checkpoint(run, vectors, there, use_reentrant=False) if known else run(vectors, there)
        return out

    def _answered(self, vectors: Tensor, there: Tensor) -> Tensor:
        h, mask = self.packed(vectors.unflatten(2, (there.shape[2], -1)).flatten(1, 2), there.flatten(1))
        logits: Tensor = self.body(inputs_embeds=h, attention_mask=mask.long()).logits
        return logits

    def packed(self, pieces: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors [n, T, D] of texts with both their ends and no gaps, and bool[n, T], where there are pieces.

        `pieces` [n, S, D] have gaps where `there` bool[n, S] is False; a text that is too long is cut.
        """
        room = self.limit - len(self.start) - len(self.end)
        length = min(int(there.sum(1).max()), room)
        first = (~there).int().sort(dim=1, stable=True).indices[:, :length]
        text = pieces.gather(1, first.unsqueeze(2).expand(-1, -1, pieces.shape[2]))
        count = there.sum(1, keepdim=True).clamp_max(length)
        kept = torch.arange(length, device=pieces.device) < count
        whole = torch.cat(
            [self._ends(self.start, pieces), text * kept.unsqueeze(2), self._ends(self.end, pieces) * 0], 1
        )
        # The end stands right behind each text, wherever that is.
        at = len(self.start) + count + torch.arange(len(self.end), device=pieces.device)
        whole = whole.scatter(1, at.unsqueeze(2).expand(-1, -1, pieces.shape[2]), self._ends(self.end, pieces))
        size = len(self.start) + count + len(self.end)
        return whole, torch.arange(whole.shape[1], device=pieces.device) < size

    def _ends(self, ids: Tensor, pieces: Tensor) -> Tensor:
        vectors: Tensor = self.words.weight[ids + 1].unsqueeze(0).expand(len(pieces), -1, -1)
        return vectors


def _same_answers(net: _Classifier, body: Any, notes: Tensor, what: str) -> None:
    """Refuse a network that answers otherwise by vectors: decoders look for the last piece among the numbers.

    The second note is asked about shorter than the first, so that there is padding between.
    """
    notes = notes.clone()
    notes[-1, 1 + int((notes[-1] > 0).sum()) // 2 :] = 0
    ids = net.words.pieces(notes).flatten(1)
    numbers, mask = _numbers(net, ids)
    try:
        with torch.no_grad():
            wanted = body(input_ids=numbers, attention_mask=mask).logits[:, net.order]
            apart = float((net(notes) - wanted).abs().max())
    except Exception as error:  # noqa: BLE001 - an architecture that takes no vectors may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise SpecError(
            f"{what} does not answer by the vectors of its pieces: {type(error).__name__}: {reason}"
        ) from None
    if not apart <= _CLOSE * max(1.0, float(wanted.abs().max())):
        raise SpecError(
            f"{what} answers otherwise by the vectors of its pieces than by their numbers (by {apart:.2g}): "
            "allowed are encoders such as BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa"
        )


def _numbers(net: _Classifier, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of pieces int64[n, T] as the tokenizer would put them, and int64[n, T], where they are."""
    room = net.limit - len(net.start) - len(net.end)
    texts = [torch.cat([net.start, row[row > 0][:room] - 1, net.end]) for row in ids]
    mask = [torch.ones_like(text) for text in texts]
    pad = nn.utils.rnn.pad_sequence
    return pad(texts, batch_first=True, padding_value=int(net.start[0]) if len(net.start) else 0), pad(
        mask, batch_first=True
    )
