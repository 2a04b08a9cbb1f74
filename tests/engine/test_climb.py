"""The engine: who leaves when, what it costs, and what repeats."""

from dataclasses import replace

import pytest
import torch

from titer.core.errors import Incompatible
from titer.core.model import Model
from titer.core.needs import Needs
from titer.core.plugins import Guarded, make_attack
from titer.engine.climb import Schedule, climb
from titer.engine.ensemble import strongest
from titer.engine.metering import Meter
from titer.engine.rows import EOT_DRAWS, MICRO_BATCH
from titer.threats.goals import HighestLoss


def _line(linear_model):
    """A model of one feature whose margin is x itself."""
    return linear_model(torch.tensor([[1.0], [0.0]]))


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _metered(model, x, y, threat, schedule):
    meter = Meter(len(x))
    found = climb(meter.watch(model), x, y, threat, schedule, rng=_rng())
    return found, meter


def test_a_row_leaves_at_its_first_error_and_pays_until_then(linear_model, free_threat):
    # Steps of 0.2 from the clean row: a margin of m is crossed at iterate ceil(m / 0.2), seen one pass later.
    x = torch.tensor([[-0.5], [0.1], [0.3], [0.55], [5.0]])
    y = torch.zeros(5, dtype=torch.int64)
    found, meter = _metered(
        _line(linear_model), x, y, free_threat("linf", 1.0), Schedule(steps=10, step=0.2, random_start=False)
    )
    assert meter.forwards.tolist() == [1, 2, 3, 4, 10]
    assert meter.backwards.tolist() == [1, 2, 3, 4, 10]
    torch.testing.assert_close(found.flatten(), torch.tensor([-0.5, -0.1, -0.1, -0.05, 4.0]))


def test_restarts_get_the_survivors_only(linear_model, free_threat):
    x = torch.tensor([[-5.0], [-5.0], [5.0]])
    y = torch.zeros(3, dtype=torch.int64)
    schedule = Schedule(steps=4, step=0.2, random_start=True, restarts=3)
    _, meter = _metered(_line(linear_model), x, y, free_threat("linf", 1.0), schedule)
    # The survivor: three starts of four steps, and a look at the last iterate before each next start.
    assert meter.forwards.tolist() == [1, 1, 14]
    assert meter.backwards.tolist() == [1, 1, 12]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_restarts_end_where_nobody_survived(norm, linear_model, free_threat):
    x, y = torch.tensor([[-5.0], [-5.0]]), torch.zeros(2, dtype=torch.int64)
    schedule = Schedule(steps=4, step=0.2, random_start=True, restarts=3)
    line = _line(linear_model)

    def logits(rows):
        assert len(rows), "many a network cannot take a batch of no rows"
        return line.logits(rows)

    found, meter = _metered(replace(line, logits=logits), x, y, free_threat(norm, 1.0), schedule)
    assert meter.forwards.tolist() == [1, 1]
    assert bool((found < 0).all())


def test_a_restart_wins_what_an_unlucky_start_lost(free_threat):
    # A wall at 0 hides the valley beyond: from the left of it, the gradient leads away.
    def logits(x):
        lead = torch.where(x > 0.8, -1.0 - 0 * x, 1.0 + 0.1 * x.clamp(max=0.8))
        return torch.cat([lead, torch.zeros_like(lead)], 1)

    model, x = Model(name="wall", logits=logits), torch.zeros(64, 1)
    y, threat = torch.zeros(64, dtype=torch.int64), free_threat("linf", 1.0)
    won = []
    for restarts in (1, 10):
        schedule = Schedule(steps=3, step=0.1, random_start=True, restarts=restarts)
        won.append(int(threat.goal.won(logits(climb(model, x, y, threat, schedule, rng=_rng())), y).sum()))
    assert won[0] < 20
    assert won[1] > 30


def test_more_rows_than_a_micro_batch(linear_model, free_threat):
    count = 2 * MICRO_BATCH + 3
    x = torch.linspace(-1, 3, count).unsqueeze(1)
    y = torch.zeros(count, dtype=torch.int64)
    threat = free_threat("linf", 1.0)
    schedule = Schedule(steps=10, step=0.25, random_start=True, restarts=2)
    found, meter = _metered(_line(linear_model), x, y, threat, schedule)
    won = threat.goal.won(_line(linear_model).logits(found), y)
    assert won.tolist() == (x.flatten() < 1).tolist()
    assert bool((meter.forwards >= 1).all())


@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd", {"name": "pgd", "restarts": 2}])
def test_the_same_seed_repeats_and_another_does_not(attack, images, image_threat):
    x, y, threat = images.test.x, images.test.y, image_threat("l2", 20.0)
    first, again, other = (make_attack(attack)(images.model, x, y, threat, rng=_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (attack in ("fgsm", "bim"))


def _noisy():
    """A model whose logits carry noise, drawn anew for each look."""

    def draw(rng):
        def logits(x):
            return torch.cat([x + torch.randn(x.shape, generator=rng), torch.zeros_like(x)], 1)

        return logits

    return Model(name="noisy", logits=lambda x: torch.cat([x, 0 * x], 1), draw=draw)


def test_a_randomised_model_is_averaged_over_draws_and_each_is_counted(free_threat):
    x, y = torch.full((3, 1), 50.0), torch.zeros(3, dtype=torch.int64)
    schedule = Schedule(steps=5, step=0.2, random_start=False)
    found, meter = _metered(_noisy(), x, y, free_threat("linf", 1.0), schedule)
    assert EOT_DRAWS == 16
    assert meter.forwards.tolist() == [80, 80, 80]
    assert meter.backwards.tolist() == [80, 80, 80]
    assert found.flatten().tolist() == [49.0, 49.0, 49.0]


def test_a_search_on_a_randomised_model_does_not_end_at_a_lucky_draw(free_threat):
    # Noise of 1 on a margin of x: at the boundary half of all looks win, and at -3 all but one in 700.
    x, y = torch.full((200, 1), 0.5), torch.zeros(200, dtype=torch.int64)
    schedule = Schedule(steps=40, step=0.1, random_start=False)
    found = climb(_noisy(), x, y, free_threat("linf", 3.5), schedule, rng=_rng())
    judged = _noisy().draw(_rng(9))(found).argmax(1) != y
    assert float(judged.float().mean()) > 0.9


def _proposing(change):
    def run(_model, x, _y, _threat, *, rng):
        del rng
        return x + change

    return run


def test_an_ensemble_keeps_the_find_that_wins_most_looks(free_threat):
    # The last member proposes the clean row; the one before it has a find that wins seven looks in ten.
    half, nothing = (Guarded("fixed", Needs(), _proposing(change)) for change in (-1.0, 0.0))
    x, y = torch.full((50, 1), 0.5), torch.zeros(50, dtype=torch.int64)
    found = strongest((half, nothing), _noisy(), x, y, free_threat("linf", 1.0), rng=_rng())
    assert float((found < 0).float().mean()) > 0.8


def test_the_goal_of_training_lets_nobody_leave(linear_model, free_threat):
    x, y = torch.tensor([[-5.0], [0.1]]), torch.zeros(2, dtype=torch.int64)
    schedule = Schedule(steps=7, step=0.2, random_start=False)
    _, meter = _metered(_line(linear_model), x, y, free_threat("linf", 1.0, goal=HighestLoss()), schedule)
    assert meter.forwards.tolist() == [7, 7]


def test_a_model_without_gradient_is_incompatible(free_threat):
    model = Model(name="steps", logits=lambda x: torch.cat([x, -x], 1).detach().round())
    schedule, y = Schedule(steps=2, step=0.2, random_start=False), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(Incompatible, match="steps is not differentiable and declares no surrogate"):
        climb(model, torch.ones(2, 1), y, free_threat("linf", 1.0), schedule, rng=_rng())
