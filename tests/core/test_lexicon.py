"""Errors, seeds, samples and extras."""

import dataclasses

import numpy as np
import pytest
import torch

from titer.core import errors
from titer.core.extras import need
from titer.core.randomness import derive, generator
from titer.core.record import Samples


def test_one_tree_of_errors():
    named = (errors.SpecError, errors.Incompatible, errors.ContractError, errors.Interrupted)
    assert all(issubclass(one, errors.TiterError) for one in named)
    assert not any(issubclass(a, b) for a in named for b in named if a is not b)
    assert all(one.__name__ in (errors.__doc__ or "") for one in named)


def test_nearest_speaks_only_of_what_is_close():
    assert errors.nearest("pdg", ["pgd", "fgsm"]) == "; did you mean 'pgd'?"
    assert errors.nearest("square", ["pgd", "fgsm"]) == ""
    message = str(errors.unknown("data.name", "chestxray", ["ecg", "chest-xray"]))
    assert message == "data.name = 'chestxray' is not known: allowed are chest-xray, ecg; did you mean 'chest-xray'?"


def test_seeds_stay_what_they_are():
    # Pinned: a change of these would make every published run unrepeatable.
    assert derive(0) == 3456079177858693020
    assert derive(7, "trial", 3) == 3086765575756848093


def test_seeds_differ_by_name_and_order():
    seeds = {derive(0), derive(1), derive(0, "a"), derive(0, "a", "b"), derive(0, "b", "a")}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_draws_what_its_seed_says():
    first, again = (torch.rand(3, generator=generator(1, "x")) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(3, generator=generator(1, "y")))


@pytest.fixture
def rows():
    return Samples(
        x=torch.arange(6.0).view(3, 2),
        y=torch.tensor([0, 1, 0]),
        ids=("a", "b", "c"),
        patients=("p", "p", "q"),
        groups={"sex": ("F", "M", "unknown")},
    )


@pytest.mark.parametrize("order", [[2, 0], np.array([2, 0]), torch.tensor([2, 0])])
def test_take_keeps_what_belongs_together(rows, order):
    taken = rows.take(order)
    assert taken.x.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert (taken.y.tolist(), taken.ids, taken.patients) == ([0, 0], ("c", "a"), ("q", "p"))
    assert taken.groups == {"sex": ("unknown", "F")}
    assert len(taken) == 2
    assert len(rows) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"x": torch.arange(6.0).view(3, 2) + 1e-6},
        {"x": torch.arange(6.0).view(3, 2, 1)},
        {"y": torch.tensor([0, 1, 1])},
        {"ids": ("a", "b", "d")},
        {"patients": ("p", "q", "q")},
        {"groups": {"sex": ("F", "M", "F")}},
        {"groups": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_sees_every_change(rows, change):
    assert dataclasses.replace(rows).digest() == rows.digest()
    assert dataclasses.replace(rows, **change).digest() != rows.digest()


def test_the_digest_tells_rows_in_another_order(rows):
    assert rows.take([0, 1, 2]).digest() == rows.digest()
    assert rows.take([1, 0, 2]).digest() != rows.digest()


def test_a_missing_extra_names_the_command():
    assert need("json", "imaging").__name__ == "json"
    with pytest.raises(errors.SpecError, match=r"no_such_module is not installed .*: pip install 'titer\[imaging\]'"):
        need("no_such_module", "imaging")
