"""Rules whose mask each clean row brings itself."""

from __future__ import annotations

import torch
from torch import Tensor

from titer.core.threat import Threat
from titer.threats.anatomy import edges, head, inside_brain, otsu, outside_brain, remembered
from titer.threats.balls import ball
from titer.threats.goals import AnyError
from titer.threats.room import may_change
from titer.threats.rules import Box, RowMask, followable


def slices(side: int = 40) -> Tensor:
    """Two heads, one to the left and one to the right: a bright skull around darker brain, and a speck outside."""
    x = torch.full((2, 1, side, side), 3.0)
    down, across = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for row, centre in enumerate((14, 25)):
        radius = ((down - 20) ** 2 + (across - centre) ** 2).float().sqrt()
        x[row, 0, radius < 12] = 200.0
        x[row, 0, radius < 10] = 90.0
    x[:, 0, 1, 1] = 220.0
    return x


def test_the_head_is_the_largest_region_with_its_holes_filled() -> None:
    x = slices()
    x[0, 0, 18:22, 12:16] = 0.0
    mask = head(x[0])[0]
    assert bool(mask[20, 14])
    assert not bool(mask[1, 1])
    assert not bool(mask[20, 30])


def test_each_row_has_its_own_mask_and_inside_and_outside_never_meet() -> None:
    x = slices()
    inner, outer = inside_brain().find(x), outside_brain().find(x)
    assert not bool((inner & outer).any())
    assert not torch.equal(inner[0], inner[1])
    assert not bool(inner[0, 0, 20, 3])  # the skull's rim is neither
    assert not bool(outer[0, 0, 20, 3])


def test_projection_puts_back_what_lies_outside_and_the_judge_sees_what_does_not() -> None:
    rule, x = inside_brain(), slices()
    everywhere = x + 5
    assert not bool(rule.contains(everywhere, x).any())
    projected = rule.project(everywhere, x)
    assert bool(rule.contains(projected, x).all())
    assert torch.equal(projected != x, rule.find(x))


def test_a_threat_keeps_budget_range_and_mask_together() -> None:
    x = slices()
    budget = ball("l2", 10.0, torch.tensor(1.0), "grey level")
    threat = Threat(family="l2", budget=budget, domain=(Box(low=0, high=255), inside_brain()), goal=AnyError())
    x_adv = threat.project(x + 100, x)
    assert bool(threat.contains(x_adv, x).all())
    assert torch.equal((x_adv - x).abs() > 0, inside_brain().find(x))


def test_steps_spend_nothing_outside_the_mask() -> None:
    x = slices()
    rule = inside_brain()
    direction = followable((rule,), x + 1, torch.ones_like(x), x)
    assert torch.equal(direction != 0, rule.find(x))


def test_search_may_look_wherever_some_row_is_open() -> None:
    x = slices()
    budget = ball("linf", 1.0, torch.tensor(1.0), "grey level")
    threat = Threat(family="linf", budget=budget, domain=(inside_brain(),), goal=AnyError())
    assert torch.equal(may_change(threat, x), inside_brain().find(x).any(0))


def test_edges_are_a_share_of_the_pixels_and_the_steepest_ones() -> None:
    x = torch.rand((3, 1, 20, 20), generator=torch.Generator().manual_seed(0))
    assert [round(float(one.float().mean()), 2) for one in edges(0.25).find(x)] == [0.25] * 3
    step = torch.zeros(1, 1, 20, 20)
    step[..., 10:] = 100.0
    found = edges(0.25).find(step)[0, 0]
    assert found[:, 9:11].all()
    assert int(found.sum()) == 40


def test_a_plain_image_has_no_head_and_no_edge() -> None:
    plain = torch.full((1, 1, 12, 12), 7.0)
    assert not bool(inside_brain().find(plain).any())
    assert not bool(edges().find(plain).any())


def test_otsu_parts_two_kinds_of_values() -> None:
    values = torch.tensor([1.0, 2, 1, 2, 80, 81, 82]).numpy()
    assert 2 < otsu(values) < 80


def test_a_mask_is_found_once_for_each_row() -> None:
    asked: list[int] = []

    def find(row: Tensor) -> Tensor:
        asked.append(1)
        return row > 0

    rule = RowMask(find=remembered(find), text="above 0")
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    for _ in range(3):
        assert rule.find(x).tolist() == [[True, False], [False, True], [True, False]]
    assert len(asked) == 2
