"""Random numbers that belong to rows."""

import pytest
import torch

from titer.core.noise import Noise


def _rows(count):
    return torch.arange(count)


def test_a_row_draws_the_same_whoever_is_in_the_batch():
    whole, part = Noise(7, _rows(50)), Noise(7, torch.tensor([3, 41]))
    for _ in range(3):
        assert torch.equal(whole.normal(2, 5)[[3, 41]], part.normal(2, 5))


def test_a_part_goes_on_where_the_whole_stood():
    whole, again = Noise(7, _rows(10)), Noise(7, _rows(10))
    part = whole.take(torch.tensor([2, 5]))
    whole.uniform(4)
    again.uniform(4)
    assert torch.equal(part.uniform(4), again.uniform(4)[[2, 5]])


def test_seeds_rows_draws_and_places_all_differ():
    first, other = Noise(1, _rows(20)), Noise(2, _rows(20))
    a, b, c = first.uniform(30), first.uniform(30), other.uniform(30)
    assert len(torch.cat([a, b, c]).unique()) > 1790


@pytest.mark.parametrize("seed", [0, 1, 2**62 - 1])
def test_the_numbers_are_distributed_as_said(seed):
    noise = Noise(seed, _rows(400))
    uniform, normal = noise.uniform(500), noise.normal(500)
    assert float(uniform.min()) >= 0.0
    assert float(uniform.max()) < 1.0
    assert abs(float(uniform.mean()) - 0.5) < 0.003
    assert abs(float(uniform.var()) - 1 / 12) < 0.002
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.var()) - 1.0) < 0.02
    assert abs(float((normal**4).mean()) - 3.0) < 0.15
    assert abs(float((normal[:, 1:] * normal[:, :-1]).mean())) < 0.01
    assert abs(float((normal[1:] * normal[:-1]).mean())) < 0.01
    assert set(noise.signs(50).unique().tolist()) == {-1.0, 1.0}
    counts = noise.integers(7, 500).flatten().bincount(minlength=7)
    assert len(counts) == 7
    assert float((counts / counts.sum() - 1 / 7).abs().max()) < 0.01


def test_one_number_a_row_and_no_row():
    assert Noise(0, _rows(3)).uniform().shape == (3,)
    assert Noise(0, _rows(0)).normal(2, 2).shape == (0, 2, 2)
