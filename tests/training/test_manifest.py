"""Signed manifests: what is signed, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch

from titer.core.errors import SpecError
from titer.core.record import Samples, SignedManifest
from titer.training.manifest import new_key, row_digests, sign, signed_rows

pytest.importorskip("cryptography")

SECRET = bytes(range(32))


@pytest.fixture
def rows():
    x = torch.arange(12.0).view(4, 3)
    return Samples(x=x, y=torch.tensor([0, 1, 0, 1]), ids=("a", "b", "c", "d"), patients=("p", "p", "q", "r"))


def test_a_signed_manifest_reads_back(rows):
    signed = sign(rows, SECRET)
    assert signed_rows(signed) == dict(zip(rows.ids, row_digests(rows), strict=True))
    assert sign(rows, SECRET) == signed, "Ed25519 draws nothing"


def test_a_digest_depends_on_value_label_id_and_patient_of_its_row_alone(rows):
    before = list(row_digests(rows))
    x = rows.x.clone()
    x[1, 2] += 1e-3
    others = (
        replace(rows, x=x),
        replace(rows, y=torch.tensor([0, 0, 0, 1])),
        replace(rows, ids=("a", "B", "c", "d")),
        replace(rows, patients=("p", "q", "q", "r")),
    )
    for other in others:
        assert [one != two for one, two in zip(before, row_digests(other), strict=True)] == [False, True, False, False]


def test_the_key_that_signed_is_the_only_one_that_is_trusted(rows):
    signed = sign(rows, SECRET)
    with pytest.raises(SpecError, match="not of this key"):
        signed_rows(replace(signed, key=new_key()[1]))
    with pytest.raises(SpecError, match="32 bytes"):
        signed_rows(replace(signed, key=b"short"))
    with pytest.raises(SpecError, match="32 bytes"):
        sign(rows, b"short")


def test_any_change_of_a_digest_breaks_the_signature(rows):
    signed = sign(rows, SECRET)
    content = json.loads(signed.text)
    content["rows"]["b"] = content["rows"]["a"]
    with pytest.raises(SpecError, match="changed after it was signed"):
        signed_rows(replace(signed, text=json.dumps(content).encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "no manifest"),
        (b'{"rows": {"a": 1}, "signature": ""}', "no manifest"),
        (b'{"rows": {}, "signature": "", "format_version": 9}', "format_version 9"),
        (b'{"rows": {}, "signature": "zz", "format_version": 1}', "not of this key"),
        (b"[" * 100000, "no JSON"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(text, message):
    with pytest.raises(SpecError, match=message) as error:
        signed_rows(SignedManifest(text=text, key=new_key()[1]), "m.json")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("m.json")


def test_no_mutation_of_a_manifest_gets_past_the_signature(rows):
    signed = sign(rows, SECRET)
    rng = torch.Generator().manual_seed(0)
    for _ in range(1000):
        text = bytearray(signed.text)
        for place in torch.randint(len(text), (3,), generator=rng).tolist():
            text[place] = int(torch.randint(256, (1,), generator=rng))
        try:
            found = signed_rows(replace(signed, text=bytes(text)))
        except SpecError:
            continue
        assert found == signed_rows(signed), "only blanks were changed"
