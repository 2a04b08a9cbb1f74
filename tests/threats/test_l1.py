"""The projection onto an L1 ball inside a box, against a general solver."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from titer.core.noise import Noise
from titer.core.threat import Threat
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.l1 import l1_projection
from titer.threats.rules import Box


def _reference(size, room, eps):
    """The level is where the sizes add up to eps; found by a scalar search."""
    total = lambda level: np.minimum(np.maximum(size - level, 0), room).sum()  # noqa: E731
    if total(0.0) <= eps:
        return np.minimum(size, room)
    level = brentq(lambda v: total(v) - eps, 0.0, size.max(), xtol=1e-13)
    return np.minimum(np.maximum(size - level, 0), room)


@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.05, 8.0), st.booleans())
def test_it_is_the_nearest_point(seed, width, eps, boxed):
    noise = Noise(seed, torch.arange(5))
    change = noise.normal(width).double() * 2
    room = noise.uniform(width).double() * 2 if boxed else torch.full_like(change, float("inf"))
    found = l1_projection(change, room, eps)
    assert bool((found.abs().sum(1) <= eps * (1 + 1e-9)).all())
    assert bool((found.abs() <= room).all())
    for row in range(5):
        size = change[row].abs().numpy()
        expected = _reference(size, np.minimum(room[row].numpy(), size), eps)
        distance = np.linalg.norm(found[row].abs().numpy() - size)
        assert distance <= np.linalg.norm(expected - size) + 1e-5


@given(st.integers(0, 10**6), st.floats(0.1, 6.0))
def test_a_threat_with_a_box_projects_in_one_go(seed, eps):
    noise = Noise(seed, torch.arange(6))
    x = noise.uniform(1, 3, 3) * 4
    scale = torch.tensor(0.5)
    threat = Threat(
        family="l1", budget=ball("l1", eps, scale, "unit"), domain=(Box(low=0.0, high=4.0),), goal=AnyError()
    )
    far = x + 3 * noise.normal(1, 3, 3)
    near = threat.project(far, x)
    assert bool(threat.contains(near, x).all())
    used = ((near - x) / scale).flatten(1).abs().sum(1)
    room = (far.clamp(0, 4) - x).abs().flatten(1).sum(1) / scale
    assert bool((used >= torch.minimum(room, torch.tensor(eps)) - 1e-3).all()), "the budget is used up"
