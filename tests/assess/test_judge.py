"""The judge believes nothing that an attack says: not its inputs, not its success, not its cost."""

import pytest
import torch

from titer.assess.judge import predict, propose, reached, verdict
from titer.core.errors import ContractError, Incompatible
from titer.core.model import Model
from titer.core.plugins import make_attack
from titer.threats.balls import size

FEATURES = 6


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model(linear_model):
    """Predicts class 0 where the first feature is above the second."""
    weights = torch.zeros(2, FEATURES)
    weights[0, 0] = weights[1, 1] = 1.0
    return linear_model(weights)


@pytest.fixture
def rows():
    x = torch.full((4, FEATURES), 10.0)
    x[:, 1] -= torch.tensor([0.5, 1.0, 4.0, -1.0])
    return x, torch.zeros(4, dtype=torch.int64)


def _judged(attack, model, rows, threat, *, minimal=False, target=None):
    x, y = rows
    clean = predict(model, x, rng=_rng())
    found = propose(attack, model, x, y, threat, reached(threat, clean, y), minimal=minimal, rng=_rng(1))
    target = target or model
    return found, verdict(target, x, y, predict(target, x, rng=_rng()), found, threat, minimal=minimal, rng=_rng(2))


def _to(change):
    """An attack that adds `change` without asking anyone."""
    return lambda _model, x, _y, _threat, *, rng: x + change  # noqa: ARG005


FLIP = torch.tensor([-1.0, 1.0, 0, 0, 0, 0])


def test_what_leaves_the_ball_is_projected_back(model, rows, free_threat):
    threat = free_threat("linf", 1.0)
    found, judged = _judged(_to(50 * FLIP), model, rows, threat)
    assert bool(threat.contains(found.x_adv, rows[0]).all())
    torch.testing.assert_close(found.x_adv[:3], rows[0][:3] + FLIP)
    assert judged.won.tolist() == [True, True, False, True]
    assert judged.put_back.tolist() == [False] * 4
    torch.testing.assert_close(judged.distances["linf"], torch.tensor([1.0, 1.0, 1.0, 0.0]))


def test_what_breaks_a_rule_is_brought_inside_it(model, table_threat):
    x = torch.full((2, FEATURES), 10.0)
    change = torch.tensor([-30.0, 0, 5.0, 0, -30.0, 0])
    threat = table_threat("linf", 20.0)
    y, none = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.bool)
    found = propose(_to(change), model, x, y, threat, none, minimal=False, rng=_rng())
    assert bool(threat.contains(found.x_adv, x).all())
    assert bool((found.x_adv[:, 2] == 10.0).all())
    assert bool((found.x_adv >= 0).all())


def test_a_nan_is_put_back_and_told(model, rows, free_threat):
    def broken(_model, x, _y, _threat, *, rng):  # noqa: ARG001
        found = x + 0.5 * FLIP
        found[0, 3] = float("nan")
        found[1, 0] = float("inf")
        return found

    found, judged = _judged(broken, model, rows, free_threat("linf", 1.0))
    assert judged.put_back.tolist() == [True, True, False, False]
    assert torch.equal(found.x_adv[:2], rows[0][:2])
    assert judged.won.tolist() == [False, False, False, True]


def test_a_minimal_find_that_breaks_a_rule_is_put_back(model, table_threat):
    x, y = torch.full((2, FEATURES), 10.0), torch.zeros(2, dtype=torch.int64)
    change = torch.zeros(2, FEATURES)
    change[0, 0] = -11.0
    none = torch.zeros(2, dtype=torch.bool)
    found = propose(_to(change), model, x, y, table_threat("linf", 1.0), none, minimal=True, rng=_rng())
    assert found.put_back.tolist() == [True, False]
    assert torch.equal(found.x_adv, x)


@pytest.mark.parametrize("wrong", [lambda x: x[:1], lambda x: x.double(), lambda x: x[..., None]])
def test_another_shape_or_type_is_a_bug(model, rows, free_threat, wrong):
    with pytest.raises(ContractError, match=r"an attack returned torch\.float"):
        _judged(lambda _m, x, _y, _t, *, rng: wrong(x), model, rows, free_threat("linf", 1.0))  # noqa: ARG005


def test_rows_already_wrong_cost_nothing_and_are_won(model, rows, free_threat):
    given = []

    def counting(watched, x, y, threat, *, rng):
        given.append(len(x))
        return make_attack("pgd")(watched, x, y, threat, rng=rng)

    found, judged = _judged(counting, model, rows, free_threat("linf", 0.1))
    assert given == [3]
    assert found.attacked.tolist() == [True, True, True, False]
    assert found.forwards[3] == 0
    assert bool((found.forwards[:3] == 40).all())
    assert judged.won.tolist() == [False, False, False, True]
    assert [float(judged.distances[norm][3]) for norm in ("linf", "l2", "l1")] == [0.0, 0.0, 0.0]


def test_nothing_to_attack_runs_no_attack(model, rows, free_threat):
    def never(*_args, **_settings):
        raise AssertionError("was called")

    x, y = rows[0][3:], rows[1][3:]
    found, judged = _judged(never, model, (x, y), free_threat("linf", 1.0))
    assert torch.equal(found.x_adv, x)
    assert judged.won.tolist() == [True]


def test_success_is_the_judges_and_not_the_attacks(rows, free_threat, model):
    # What the attack says of itself has no place to be written: unchanged rows are not won.
    _, judged = _judged(_to(0.0), model, rows, free_threat("linf", 9.0))
    assert judged.won.tolist() == [False, False, False, True]


def test_a_cheap_pass_is_no_free_pass(model, rows, free_threat):
    def peeking(watched, x, _y, _threat, *, rng):  # noqa: ARG001
        for _ in range(5):
            watched.logits(x)
        watched.logits(x[:1])
        return x

    found, _ = _judged(peeking, model, rows, free_threat("linf", 1.0))
    assert float(found.forwards.sum()) == pytest.approx(5 * 3 + 1)


def test_attack_and_judge_see_different_draws(free_threat, rows):
    # The class depends on a coin and not on the input: an attack that reads its own coin gains nothing.
    def draw(rng):
        coin = torch.rand(1, generator=rng)
        seen.append(float(coin))
        return lambda x: torch.stack([coin - 0.5 + 0 * x[:, 0], 0 * x[:, 0]], 1)

    seen = []
    model = Model(name="coin", logits=draw(_rng(9)), draw=draw)

    def reading(watched, x, _y, _threat, *, rng):
        watched.draw(rng)(x)
        return x

    x, y = rows
    clean = predict(model, x, rng=_rng(5))
    threat = free_threat("linf", 1.0)
    found = propose(reading, model, x, y, threat, torch.zeros(4, dtype=torch.bool), minimal=False, rng=_rng(1))
    verdict(model, x, y, clean, found, threat, minimal=False, rng=_rng(2))
    assert len(set(seen)) == len(seen) == 4


def test_a_minimal_attack_is_read_at_every_eps(model, rows, free_threat):
    x, y = rows
    clean = predict(model, x, rng=_rng())
    threat = free_threat("linf", 1.0)
    found = propose(make_attack("deepfool"), model, x, y, threat, reached(threat, clean, y), minimal=True, rng=_rng())
    distance = size("linf", found.x_adv, x, torch.tensor(1.0))
    before = torch.zeros(4, dtype=torch.bool)
    wrong = torch.tensor([False, False, False, True])
    for eps in (0.1, 0.26, 0.6, 3.0):
        judged = verdict(model, x, y, clean, found, threat.at(eps), minimal=True, rng=_rng())
        assert judged.won.tolist() == (wrong | (distance <= eps)).tolist()
        assert bool((judged.won | ~before).all())
        assert judged.prediction.classes.tolist() == judged.won.long().tolist()
        torch.testing.assert_close(judged.distances["linf"], distance.masked_fill(wrong, 0.0))
        before = judged.won
    assert bool(before.all())


def test_a_minimal_attack_that_missed_is_infinitely_far(model, rows, free_threat):
    _, judged = _judged(_to(0.0), model, rows, free_threat("linf", 1.0), minimal=True)
    assert judged.distances["linf"].tolist() == [float("inf")] * 3 + [0.0]


@pytest.mark.parametrize("access", ["scores", "decision"])
def test_access_is_enforced(access, images, image_threat):
    x, y = images.test.x, images.test.y
    none = torch.zeros(len(x), dtype=torch.bool)
    threat = image_threat("linf", 1.0, access=access)

    def greedy(model, x, y, threat, *, rng):
        return x + model.grad(lambda logits: threat.goal.loss(logits, y), x, rng=rng)

    with pytest.raises(Incompatible, match="a gradient was asked for"):
        propose(greedy, images.model, x, y, threat, none, minimal=False, rng=_rng())


def test_inputs_are_judged_on_another_model(model, rows, free_threat, linear_model):
    # The target looks at features 2 and 3 instead: what fools the source leaves it cold.
    weights = torch.zeros(2, FEATURES)
    weights[0, 2] = weights[1, 3] = 1.0
    other = linear_model(weights, torch.tensor([1.0, 0.0]))
    _, own = _judged(_to(FLIP), model, rows, free_threat("linf", 1.0))
    _, borrowed = _judged(_to(FLIP), model, rows, free_threat("linf", 1.0), target=other)
    assert own.won.tolist() == [True, True, False, True]
    assert borrowed.won.tolist() == [False] * 4
    assert borrowed.prediction.probabilities.shape == (4, 2)


def test_goals_are_judged_on_the_decision(model, rows, free_threat):
    x, y = rows
    prediction = predict(model, x, rng=_rng())
    assert reached(free_threat("linf", 1.0), prediction, y).tolist() == [False, False, False, True]
    torch.testing.assert_close(prediction.probabilities.sum(1), torch.ones(4))
