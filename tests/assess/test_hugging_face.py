"""Classifiers of the library transformers, from a folder: tiny untrained ones, and folders that are refused."""

import json
import random

import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from typer.testing import CliRunner

from titer.assess.judge import attack_rows
from titer.assess.models import ModelSpec, build
from titer.cli.main import app
from titer.core.errors import SpecError
from titer.core.lexicon import WordEmbedding, embedding_of
from titer.core.plugins import make, make_attack
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError

SAID = [
    "yesterday",
    "the",
    "person",
    "arrived",
    "walking",
    "talking",
    "looking",
    "feeling",
    "quite",
    "rather",
    "entirely",
]
OWN = {"bone": ["limping", "aching", "bending", "twisting"], "heart": ["wheezing", "gasping", "panting", "fainting"]}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PLACES = 40


def _texts():
    rng = random.Random(0)
    for i in range(60):
        label = "heart" if i % 2 else "bone"
        words = [*rng.choices(SAID, k=14), *rng.choices(OWN[label], k=3), f"{i}.5"]
        rng.shuffle(words)
        yield " ".join(words[: 8 + i % 10]), label


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("wards") / "notes.csv"
    path.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in _texts())]) + "\n")
    return make("modalities", {"name": "clinical-notes", "file": str(path), "words": 24})()


def _word_pieces():
    """Pieces as BERT's: words of 5 letters and more are cut in two, by a vocabulary that holds their halves."""
    known = {half for word in [*SAID, *OWN["bone"], *OWN["heart"]] for half in (word[:4], f"##{word[4:]}")}
    letters = {f"{before}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789." for before in ("", "##")}
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(known | letters)]
    tokenizer = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer, {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def _bytes():
    """Pieces as RoBERTa's: a word begins with its space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((text for text, _ in _texts()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer, {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


KINDS = {
    "bert": (transformers.BertConfig, {**SIZES, "max_position_embeddings": PLACES}, _word_pieces),
    "roberta": (
        transformers.RobertaConfig,
        {**SIZES, "max_position_embeddings": PLACES + 2, "pad_token_id": 1},
        _bytes,
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": PLACES},
        _word_pieces,
    ),
    "gpt2": (transformers.GPT2Config, {"n_embd": 16, "n_layer": 1, "n_head": 2, "pad_token_id": 1}, _bytes),
}


def _saved(folder, kind="bert", kept=transformers.AutoModelForSequenceClassification, **settings):
    """Write a tiny untrained classifier; its weights are larger than usual, so that words matter."""
    of, sizes, pieces = KINDS[kind]
    cut, names = pieces()
    torch.manual_seed(1)
    net = kept.from_config(of(vocab_size=cut.get_vocab_size(), **{"num_labels": 2, **sizes, **settings}))
    with torch.no_grad():
        for weights in net.parameters():
            if weights.dim() > 1:
                weights.mul_(8)
    net.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=cut, model_max_length=PLACES, **names)
    tokenizer.save_pretrained(folder)
    return folder


def _model(folder, data):
    spec = ModelSpec(label="own", huggingface=folder.name)
    return build(spec, data, data.pool, folder=folder.parent, seed=0, where="models.own")


def _refusal(folder, data):
    with pytest.raises(SpecError) as caught:
        _model(folder, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_it_answers_as_the_library_does_on_the_written_note(kind, tmp_path, data):
    folder = _saved(tmp_path / kind, kind)
    model = _model(folder, data)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = [" ".join(data.written(row)) for row in data.pool.x[:20]]
    with torch.no_grad():
        told = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        wanted = net(input_ids=told["input_ids"], attention_mask=told["attention_mask"]).logits
    lengths = told["attention_mask"].sum(1)
    assert lengths.min() < lengths.max()
    assert torch.allclose(model.logits(data.pool.x[:20]), wanted, rtol=0, atol=1e-5)
    assert wanted.std(0).min() > 1e-3, "an answer that is always the same would prove nothing"


def test_a_note_that_is_too_long_is_cut_as_the_library_cuts_it(tmp_path, data):
    folder = _saved(tmp_path / "bert", max_position_embeddings=12)
    (folder / "tokenizer_config.json").write_text(
        (folder / "tokenizer_config.json")
        .read_text()
        .replace(f'"model_max_length": {PLACES}', '"model_max_length": 12')
    )
    model, tokenizer = _model(folder, data), transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    told = tokenizer([" ".join(data.written(row)) for row in data.pool.x[:5]], return_tensors="pt", truncation=True)
    with torch.no_grad():
        assert torch.allclose(model.logits(data.pool.x[:5]), net(input_ids=told["input_ids"]).logits, atol=1e-4)
    assert told["input_ids"].shape[1] == 12


def test_hotflip_follows_its_gradient(tmp_path, data):
    model = _model(_saved(tmp_path / "bert"), data)
    assert isinstance(embedding_of(model.net), WordEmbedding)
    x = data.pool.x[:12]
    y = model.logits(x).argmax(1)
    budget = ball("l0", 30, torch.tensor(1.0), "% of words")
    threat = Threat(family="words", budget=budget, domain=data.domain, goal=AnyError())
    result = attack_rows(make_attack("hotflip"), model, x, y, threat)
    assert not result.proposal.put_back.any()
    assert result.proposal.backwards.sum() > 0
    margin = threat.goal.margin(model.logits(result.proposal.x_adv), y) - threat.goal.margin(model.logits(x), y)
    assert bool((margin > 0).all())


def test_classes_are_found_by_their_names(tmp_path, data):
    plain = _model(_saved(tmp_path / "plain"), data)
    turned = _model(_saved(tmp_path / "turned", id2label={0: "Heart", 1: "Bone"}), data)
    x = data.pool.x[:6]
    assert data.classes == ("bone", "heart")
    assert torch.allclose(plain.logits(x), turned.logits(x).flip(1))
    assert plain.provenance["pretrained"] == "yes"


def test_other_classes_are_refused(tmp_path, data):
    assert "knows 3 classes" in _refusal(_saved(tmp_path / "three", num_labels=3), data)
    said = _refusal(_saved(tmp_path / "named", id2label={0: "ill", 1: "well"}), data)
    assert "calls its classes ill, well: the data call them bone, heart" in said


def test_weights_that_are_no_safetensors_are_never_opened(tmp_path, data):
    folder = _saved(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "holds no *.safetensors" in _refusal(folder, data)


def test_a_network_without_a_trained_answer_is_refused(tmp_path, data):
    folder = _saved(tmp_path / "bert", kept=transformers.AutoModel)
    assert "its weights lack" in _refusal(folder, data)


def test_code_that_a_folder_brings_is_not_run(tmp_path, data):
    folder = _saved(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForSequenceClassification": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "cannot be read by transformers" in _refusal(folder, data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"), [("model.safetensors", b"\0" * 64), ("config.json", b"{"), ("tokenizer.json", b"[]")]
)
def test_a_damaged_folder_is_one_line(name, content, tmp_path, data):
    folder = _saved(tmp_path / "bert")
    (folder / name).write_bytes(content)
    assert "cannot be read by transformers" in _refusal(folder, data)


def test_a_decoder_that_looks_for_its_last_piece_is_refused(tmp_path, data):
    assert "by the vectors of its pieces" in _refusal(_saved(tmp_path / "gpt2", "gpt2"), data)


def test_a_folder_that_is_none_and_data_that_are_no_notes_are_refused(tmp_path, data):
    assert "holds no config.json and no *.safetensors" in _refusal(tmp_path / "absent", data)
    table = make("modalities", "cytology")()
    assert "these data are no notes" in _refusal(_saved(tmp_path / "bert"), table)


def test_a_plan_assesses_a_folder_beside_it(tmp_path):
    _saved(tmp_path / "reader", id2label={0: "bone", 1: "heart"})
    (tmp_path / "notes.csv").write_text(
        "\n".join(["text,label", *(f"{text},{label}" for text, label in _texts())]) + "\n"
    )
    (tmp_path / "plan.toml").write_text("""
name = "own-reader"
trials = 1
attacks = ["hotflip"]
data = { name = "clinical-notes", file = "notes.csv", words = 24 }
models = [{ label = "reader", huggingface = "reader" }]
threats = [{ norm = "l0", eps = [20], unit = "% of words" }]
""")
    done = CliRunner().invoke(
        app, ["assess", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "run"), "--workers", "1"]
    )
    assert done.exit_code == 0, done.output
    outcomes = pd.read_parquet(tmp_path / "run" / "outcomes.parquet")
    attacked = outcomes[outcomes["attack"] == "hotflip"]
    assert bool((attacked[~attacked["won"]]["backwards"] > 0).all()), (
        "a gradient attack ran on every note it did not win"
    )
    assert attacked["distance_l0"].max() > 0
