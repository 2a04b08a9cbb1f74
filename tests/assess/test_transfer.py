"""Inputs found on surrogates, judged on the plan's models: whole assessments, and what each surrogate learned from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.assess.plans import tiny
from tests.assess.test_run import same_tables

from titer.assess.estimate import grid_text
from titer.assess.grid import count_cells, count_steps, tasks
from titer.assess.models import build
from titer.assess.plan import Plan
from titer.assess.plan_checks import check_against
from titer.assess.pool import Message
from titer.assess.run import assess
from titer.assess.surrogates import _lessons, surrogate
from titer.assess.theft import ask, questions
from titer.assess.transfer import Unending
from titer.assess.trial import Trial, open_trial
from titer.core.errors import Incompatible, SpecError
from titer.core.places import weights_cache
from titer.core.record import Recipe
from titer.threats.goals import AnyError
from titer.threats.rules import Box, ordered

HEAD = """
name = "lent"
trials = 1
seed = 7
attacks = ["fgsm", { name = "pgd", steps = 20 }, "deepfool"]

[data]
name = "cytology"

[training]
epochs = 25
batch_size = 32
learning_rate = 0.01

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [16] }

[[threats]]
norm = "linf"
eps = [0.25, 0.5]
unit = "sd"

[[defenses]]
label = "at"
defense = { name = "adversarial-training", eps = 0.5, unit = "sd", epochs = 3 }
"""
SURROGATES = """
[[surrogates]]
label = "wider"
network = { name = "mlp", hidden = [32, 32] }

[[surrogates]]
label = "others"
network = { name = "mlp", hidden = [24] }
data = "other-site"
training = { epochs = 40 }

[[surrogates]]
label = "copy"
network = { name = "mlp", hidden = [24] }
data = "stolen"
queries = 600
training = { epochs = 60 }
"""
SHORT = HEAD.replace('attacks = ["fgsm", { name = "pgd", steps = 20 }, "deepfool"]', 'attacks = ["fgsm"]').replace(
    "epochs = 25", "epochs = 12"
)
"""The same plan with one attack of a single step."""

NAMES = ("surrogate: wider", "surrogate: others", "surrogate: copy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run with every kind of surrogate, in this process."""
    base = tmp_path_factory.mktemp("transfer")
    return assess(tiny(base, HEAD + SURROGATES), base / "out", workers=1)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "outcomes.parquet")


def opened(plan: Plan) -> Trial:
    return open_trial(plan, 0, cache=weights_cache())


def test_every_surrogate_is_a_source_and_never_a_target(outcomes: pd.DataFrame) -> None:
    assert set(outcomes["source"]) == {"none", "at", *NAMES}
    assert set(outcomes["defense"]) == {"none", "at"}
    assert set(outcomes["model"]) == {"mlp"}
    lent = outcomes[outcomes["source"].isin(NAMES)]
    rows, attacks, budgets, targets = lent["sample_id"].nunique(), 3, 2, 2
    assert len(lent) == rows * attacks * budgets * targets * len(NAMES)
    assert not outcomes.duplicated(["model", "defense", "source", "attack", "threat", "sample_id"]).any()


def rate(outcomes: pd.DataFrame, defense: str, source: str, attack: str = "pgd") -> float:
    """Return the success at the largest budget among rows that are right when clean."""
    rows = outcomes[(outcomes["defense"] == defense) & (outcomes["source"] == source) & (outcomes["attack"] == attack)]
    rows = rows[(rows["eps"] == 0.5) & (rows["clean_prediction"] == rows["label"])]
    return float(rows["won"].mean())


@pytest.mark.parametrize("source", NAMES)
def test_borrowed_inputs_fool_some_patients_and_fewer_than_the_attacker_who_knows(
    source: str, outcomes: pd.DataFrame
) -> None:
    assert 0.1 < rate(outcomes, "none", source) <= rate(outcomes, "none", "none") + 0.01


def test_a_search_that_goes_on_after_its_first_success_transfers_better(folder: Path) -> None:
    """PGD stops nowhere on a surrogate; DeepFool stops at the boundary, and its finds hardly cross another one."""
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    assert rate(outcomes, "none", "surrogate: wider") > 1.5 * rate(outcomes, "none", "surrogate: wider", "deepfool")


def test_surrogates_pay_for_every_row_and_their_finds_stay_inside(outcomes: pd.DataFrame) -> None:
    lent = outcomes[outcomes["source"].isin(NAMES) & (outcomes["attack"] == "pgd")]
    assert (lent["backwards"] == 20).all()
    assert (lent["distance_linf"] <= lent["eps"] * 1.0001).all()
    assert not lent["put_back"].any()


def test_a_stolen_copy_agrees_with_its_target_and_its_questions_are_counted(folder: Path) -> None:
    told = {one["surrogate"]: one for one in json.loads((folder / "surrogates.json").read_text())["surrogates"]}
    assert set(told) == set(NAMES)
    assert told["surrogate: copy"]["queries"] == 600
    assert told["surrogate: wider"]["queries"] == 0
    assert told["surrogate: copy"]["agreement"]["mlp"] > 0.9
    assert len({one["sha256"] for one in told.values()}) == 3


def test_the_worst_case_counts_no_borrowed_input(folder: Path) -> None:
    metrics = pd.read_parquet(folder / "metrics.parquet")
    worst = metrics[(metrics["attack"] == "worst-case") & (metrics["group"] == "all")]
    assert set(worst["source"]) == {"none", "at"}
    assert set(NAMES) <= set(metrics["source"])
    checks = json.loads((folder / "sanity.json").read_text())["checks"]
    held = [one for one in checks if one["check"] == "white-box-no-worse-than-transfer"]
    assert {one["defense"] for one in held} == {"none", "at"}
    assert {one["defense"] for one in checks} == {"none", "at"}, "no surrogate is judged"


def test_the_same_tables_with_two_workers(folder: Path, tmp_path: Path) -> None:
    again = assess(tiny(tmp_path, HEAD + SURROGATES), tmp_path / "out", workers=2)
    same_tables(folder, again)
    assert (folder / "surrogates.json").read_bytes() == (again / "surrogates.json").read_bytes()


def test_a_second_call_runs_no_cell_again_and_every_step_is_counted(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    messages: list[Message] = []
    plan = tiny(folder.parent, HEAD + SURROGATES)
    assess(plan, folder, workers=1, listener=messages.append)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == before
    own_cells, lent_cells, trainings = 2 * (1 + 5), 3 * 5, 2 + 3
    assert count_cells(plan) == own_cells + lent_cells
    assert sum(message.done for message in messages) == count_steps(plan) == own_cells + lent_cells + trainings
    assert any("attacking surrogate: copy" in message.text for message in messages)


def test_a_copy_is_trained_after_its_target_and_one_for_each_model(tmp_path: Path) -> None:
    second = '[[models]]\nlabel = "small"\nnetwork = { name = "mlp", hidden = [8] }\n\n[[threats]]'
    plan = tiny(tmp_path, (HEAD + SURROGATES).replace("[[threats]]", second, 1))
    stages = tasks(plan)
    copies = [(stage, task.model) for stage, all_ in enumerate(stages[:-1]) for task in all_ if task.surrogate == 2]
    assert copies == [(1, 0), (1, 1)]
    shared = [stage for stage, all_ in enumerate(stages[:-1]) for task in all_ if task.surrogate in (0, 1)]
    assert shared == [0, 0]
    assert count_cells(plan) == 4 * 6 + (1 + 1 + 2) * 5


def test_one_surrogate_is_shown_to_all_models(tmp_path: Path) -> None:
    second = '[[models]]\nlabel = "small"\nnetwork = { name = "mlp", hidden = [8] }\n\n[[threats]]'
    wider = SURROGATES.split("[[surrogates]]")[1]
    text = SHORT.split("[[defenses]]")[0].replace("[[threats]]", second, 1) + "[[surrogates]]" + wider
    out = assess(tiny(tmp_path, text), tmp_path / "out", workers=1)
    lent = pd.read_parquet(out / "outcomes.parquet").query("source == 'surrogate: wider'")
    assert set(lent["model"]) == {"mlp", "small"}
    small, large = (lent[lent["model"] == name].reset_index() for name in ("small", "mlp"))
    both = (small["distance_l2"] > 0) & (large["distance_l2"] > 0)  # 0 where a model errs without any change
    assert both.mean() > 0.9
    np.testing.assert_array_equal(small[both]["distance_l2"], large[both]["distance_l2"], "both saw the same inputs")
    assert (small["adversarial_probabilities"].map(list) != large["adversarial_probabilities"].map(list)).mean() > 0.9
    told = json.loads((out / "surrogates.json").read_text())["surrogates"]
    assert set(told[0]["agreement"]) == {"mlp", "small"}


@pytest.mark.parametrize(("transfer", "lenders"), [("none", set()), ("undefended", {"none"}), ("all", {"none", "at"})])
def test_whose_inputs_the_other_models_see(transfer: str, lenders: set[str], tmp_path: Path) -> None:
    out = assess(tiny(tmp_path, f'transfer = "{transfer}"\n' + SHORT), tmp_path / "out", workers=1)
    outcomes = pd.read_parquet(out / "outcomes.parquet")
    assert set(outcomes[outcomes["source"] != outcomes["defense"]]["source"]) == lenders


def onnx_model(folder: Path) -> str:
    """Export a trained network, and return a plan's table of the ONNX file."""
    plan = tiny(folder, HEAD)
    model = opened(plan).base(plan.models[0])

    class Whole(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model.logits(x)

    path = folder / "target.onnx"
    torch.onnx.export(
        Whole(), (torch.zeros(2, 30),), str(path), input_names=["x"], dynamic_axes={"x": {0: "n"}}, dynamo=False
    )
    return '[[models]]\nlabel = "file"\nonnx = "target.onnx"\npreprocess = "none"\n'


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("access", ["scores", "decision"])
def test_a_target_that_only_answers_falls_to_a_copy_of_it(access: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    table = onnx_model(tmp_path)
    network = '[[models]]\nlabel = "mlp"\nnetwork = { name = "mlp", hidden = [16] }\n'
    text = (
        HEAD.split("[[defenses]]")[0]
        .replace(network, table)
        .replace('unit = "sd"', f'unit = "sd"\naccess = "{access}"')
    )
    copy = "[[surrogates]]" + SURROGATES.split("[[surrogates]]")[3] + f'access = "{access}"\n'
    out = assess(tiny(tmp_path, text + copy.replace("training =", "\ntraining =")), tmp_path / "out", workers=1)
    outcomes = pd.read_parquet(out / "outcomes.parquet")
    lent = outcomes[outcomes["source"] == "surrogate: copy"]
    assert set(lent["access"]) == {access}, "what the attacker sees of the target"
    assert (lent[lent["attack"] == "pgd"]["backwards"] == 20).all(), "the attacker owns the copy"
    assert rate(outcomes, "none", "surrogate: copy") > 0.3
    skipped = json.loads((out / "skipped.json").read_text())["cells"]
    assert {one["source"] for one in skipped} == {"none"}, "gradient attacks cannot run on the file itself"


def test_who_sees_decisions_owns_no_copy_made_from_scores(tmp_path: Path) -> None:
    text = SHORT.split("[[defenses]]")[0].replace('unit = "sd"', 'unit = "sd"\naccess = "decision"')
    copy = "[[surrogates]]" + SURROGATES.split("[[surrogates]]")[3]
    out = assess(tiny(tmp_path, text + copy), tmp_path / "out", workers=1)
    skipped = json.loads((out / "skipped.json").read_text())["cells"]
    reasons = {one["reason"] for one in skipped if one["source"] == "surrogate: copy"}
    assert reasons == {"surrogate: copy was copied from scores, and this attacker sees no more than a decision"}


def test_a_dry_run_names_and_counts_the_surrogates(tmp_path: Path) -> None:
    with_, without = (grid_text(tiny(tmp_path, text)) for text in (HEAD + SURROGATES, HEAD))
    assert "transfer  surrogate: wider, surrogate: others, surrogate: copy" in with_
    assert "cells     27" in with_
    assert "cells     12" in without
    assert "surrogate: copy: 600 questions to each model a trial" in with_


def test_other_patients_are_those_that_no_target_learns_from(tmp_path: Path) -> None:
    plan = tiny(tmp_path, HEAD + SURROGATES)
    trial = opened(plan)
    data, _, queries = _lessons(trial, plan.surrogates[1], plan.models[0])
    own = set(data.train.patients) | set(data.validation.patients)
    assert own == set(trial.split.validation.patients)
    assert not own & (set(trial.split.train.patients) | set(trial.split.test.patients))
    assert not set(data.train.patients) & set(data.validation.patients)
    assert queries == 0
    assert data.recipe == Recipe(epochs=40, batch_size=32, learning_rate=0.01)


def site_plan(folder: Path, values: str = '["north"]') -> Plan:
    """Write a plan on arrays with a site column, and one surrogate that knows a single site."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 2
    x = (rng.normal(size=(240, 5)) + 1.5 * y[:, None]).astype(np.float32)
    site = np.array(["north", "south", "west"])[np.arange(240) // 2 % 3]
    np.savez(folder / "sites.npz", x=x, y=y, site=site)
    text = HEAD.replace('name = "cytology"', 'name = "arrays"\nfile = "sites.npz"').split("[[defenses]]")[0]
    one = (
        f'[[surrogates]]\nlabel = "one site"\nnetwork = "mlp"\ndata = "other-site"\ngroup = "site"\nvalues = {values}\n'
    )
    return tiny(folder, text + one)


def test_a_site_is_a_subgroup_column(tmp_path: Path) -> None:
    plan = site_plan(tmp_path)
    trial = opened(plan)
    check_against(plan, trial.data)
    data, _, _ = _lessons(trial, plan.surrogates[0], plan.models[0])
    assert set(data.train.groups["site"]) | set(data.validation.groups["site"]) == {"north"}
    north = sum(value == "north" for value in trial.split.train.groups["site"])
    assert len(data.train) + len(data.validation) == north > 30
    assert surrogate(trial, plan.surrogates[0], plan.models).model is not None


def test_a_site_that_no_row_has_is_named(tmp_path: Path) -> None:
    plan = site_plan(tmp_path, '["nort"]')
    with pytest.raises(SpecError, match=r"surrogates.one site.values = 'nort' .*north, south, west"):
        check_against(plan, opened(plan).data)


def test_too_few_rows_to_learn_from_are_a_reason_and_no_crash(tmp_path: Path) -> None:
    plan = site_plan(tmp_path)
    trial = opened(plan)
    few = plan.surrogates[0].model_copy(update={"values": ("nowhere",)})
    with pytest.raises(Incompatible, match="has 0 rows of 0 patients"):
        _lessons(trial, few, plan.models[0])
    made = surrogate(trial, few, plan.models)
    assert made.model is None
    assert "too few to train on" in made.reason


def test_questions_begin_with_own_rows_and_keep_the_rules() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand((40, 4)) * torch.tensor([1.0, 1.0, 5.0, 5.0])
    x[:, 1] += x[:, 0]
    rules = (Box(low=0.0, high=5.0), ordered((0,), (1,), "worst is at least mean"))
    asked = questions(x, 300, rules, rng=rng)
    assert asked.shape == (300, 4)
    assert torch.equal(asked[:40].sort(0)[0], x.sort(0)[0])
    assert len(asked.unique(dim=0)) == 300
    assert all(bool(rule.contains(asked, asked).all()) for rule in rules)
    assert questions(x, 10, rules, rng=rng).shape == (10, 4)


def test_each_question_is_asked_once_and_never_again(tmp_path: Path) -> None:
    plan = tiny(tmp_path, HEAD)
    trial = opened(plan)
    model = build(plan.models[0], trial.data, trial.split.train, folder=tmp_path, seed=0)
    asked: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return model.logits(x)

    target, rng = replace(model, logits=counted), torch.Generator()
    x = trial.split.validation.x
    first, again = (ask(target, x, "scores", cache=tmp_path, known_by="it", rng=rng) for _ in range(2))
    assert sum(asked) == len(x)
    assert torch.equal(first, again)
    decided = ask(target, x, "decision", cache=tmp_path, known_by="it", rng=rng)
    assert decided.unique().tolist() == [0.0, 1.0]
    assert torch.equal(decided.argmax(1), first.argmax(1))


def test_a_goal_without_end_is_the_goal_but_for_its_end() -> None:
    goal, logits, y = Unending(AnyError()), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert not bool(goal.won(logits, y).any())
    assert goal.name == "any-error"
    assert torch.equal(goal.loss(logits, y), AnyError().loss(logits, y))
    assert torch.equal(goal.margin(logits, y), AnyError().margin(logits, y))
    assert bool(goal.applies(y).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('label = "wider"', 'label = "others"'), "surrogates.label = 'others' stands twice"),
        (("queries = 600", ""), "surrogates.copy.queries is missing"),
        (("queries = 600", "queries = 3"), r"surrogates.2.queries = 3 is not allowed"),
        (
            ('data = "other-site"', 'data = "other-site"\nqueries = 50'),
            "queries = 50 is not allowed with data = 'other",
        ),
        (('data = "other-site"', 'data = "other-site"\ngroup = "site"'), "group needs surrogates.others.values"),
        (('data = "stolen"', 'data = "stollen"'), r"surrogates.2.data = 'stollen' is not allowed"),
        (("epochs = 60", "epoch = 60"), "epoch = 60 is not a known key: .*epochs"),
        (("epochs = 60", "epochs = 0"), "surrogates.copy.training.epochs = 0 is not allowed"),
        (
            ('label = "wider"', 'label = "wider"\nonnx = "x"'),
            "surrogates.0.onnx = 'x' is not a known key: allowed are label",
        ),
        (('label = "at"', 'label = "surrogate: x"'), "defenses.label = 'surrogate: x' is not allowed"),
        (("seed = 7", 'seed = 7\ntransfer = "some"'), "transfer = 'some' is not allowed"),
        (('name = "mlp", hidden = [24]', 'name = "mpl"'), r"surrogates.others.network = 'mpl' .*mlp"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        tiny(tmp_path, (HEAD + SURROGATES).replace(*change, 1))
