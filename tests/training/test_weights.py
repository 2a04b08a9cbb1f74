"""Weights on disk: nothing is executed, nothing damaged is believed, nothing half-written is left."""

import os
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from titer.core.errors import SpecError
from titer.training.weights import TrainingCost, cached, digest, keep, read, save

STATE = {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)}
COST = TrainingCost(epochs=3, cpu_seconds=1.0, wall_seconds=2.0)


class _Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.safetensors"])
def test_good_weights_are_read(tmp_path, name):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    assert digest(read(path, "here")) == digest(STATE)


@pytest.mark.parametrize("wrap", [pickle.dumps, None], ids=["a bare pickle", "torch.save"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, wrap):
    trap, path = tmp_path / "executed", tmp_path / "weights.pt"
    if wrap is None:
        torch.save({"weight": _Malicious(trap)}, path)
    else:
        path.write_bytes(wrap({"weight": _Malicious(trap)}))
    with pytest.raises(SpecError, match=r"here = '.*weights\.pt' is damaged or holds more than tensors"):
        read(path, "here")
    assert not trap.exists()


def test_a_whole_network_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(SpecError, match="state dicts that load with weights_only=True"):
        read(path, "here")


@pytest.mark.parametrize(
    ("content", "kind"), [([torch.ones(2)], "list"), ({"a": 3}, "dict"), (torch.ones(2), "Tensor")]
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, kind):
    path = tmp_path / "odd.pt"
    torch.save(content, path)
    with pytest.raises(SpecError, match=f"holds a {kind}: allowed is a state dict of tensors"):
        read(path, "here")


def test_truncated_safetensors_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SpecError, match="is not a safetensors file"):
        read(path, "here")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"here = '.*none\.pt': no such file"):
        read(tmp_path / "none.pt", "here")


@given(st.binary(max_size=60), st.sampled_from([".pt", ".safetensors"]))
def test_any_rubbish_is_refused_in_one_way(tmp_path_factory, rubbish, suffix):
    path = tmp_path_factory.mktemp("rubbish") / f"weights{suffix}"
    path.write_bytes(rubbish)
    with pytest.raises(SpecError, match="here = "):
        read(path, "here")


@given(st.data())
def test_a_damaged_pickle_is_refused_or_holds_tensors(tmp_path_factory, data):
    content = bytearray(pickle.dumps({"a": [1, 2], "b": "text"}, protocol=data.draw(st.sampled_from([0, 2, 4]))))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="here = "):
        read(path, "here")


def test_saving_leaves_no_part_behind(tmp_path):
    path = tmp_path / "deep" / "weights.safetensors"
    save(path, STATE, {"note": "x"})
    save(path, STATE, {"note": "y"})
    assert [one.name for one in path.parent.iterdir()] == ["weights.safetensors"]


def test_a_failed_save_leaves_no_part(tmp_path):
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(OSError, match=r"weights\.safetensors"):
        save(tmp_path / "weights.safetensors", STATE, {})
    assert [one.name for one in tmp_path.iterdir()] == ["weights.safetensors"]


def test_tied_and_strided_weights_are_kept(tmp_path):
    tied = torch.arange(4.0).view(2, 2)
    image = torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"first": tied, "second": tied, "turned": tied.t(), "last": image}
    keep(tmp_path, "key", state, COST)
    found, _ = cached(tmp_path, "key") or (None, None)
    assert found is not None
    assert digest(found) == digest(state)


def test_the_cache_gives_back_what_it_was_given(tmp_path):
    assert cached(tmp_path, "key") is None
    assert cached(None, "key") is None
    keep(None, "key", STATE, COST)
    keep(tmp_path, "key", STATE, COST)
    state, cost = cached(tmp_path, "key")
    assert digest(state) == digest(STATE)
    assert (cost.epochs, cost.wall_seconds, cost.cached) == (3, 2.0, True)


def test_a_cache_file_without_its_note_counts_as_absent(tmp_path):
    save_file(STATE, tmp_path / "bare.safetensors")
    save(tmp_path / "odd.safetensors", STATE, {"cost": "{", "weights": digest(STATE)})
    save(tmp_path / "more.safetensors", STATE, {"cost": '{"hours": 3}', "weights": digest(STATE)})
    assert [cached(tmp_path, key) for key in ("bare", "odd", "more")] == [None, None, None]


def test_the_digest_sees_names_shapes_types_and_values():
    states = [
        STATE,
        {**STATE, "more": torch.ones(1)},
        {"weigth": STATE["weight"], "steps": STATE["steps"]},
        {**STATE, "weight": STATE["weight"].view(3, 2)},
        {**STATE, "weight": STATE["weight"].int()},
        {**STATE, "weight": STATE["weight"] + torch.eye(2, 3) * 1e-6},
    ]
    assert len({digest(state) for state in states}) == len(states)
    assert digest(dict(reversed(STATE.items()))) == digest(STATE)
    image = torch.rand(1, 3, 4, 4)
    assert digest({"w": image}) == digest({"w": image.to(memory_format=torch.channels_last)})
