"""What a dry run tells of plans with randomised models and with studies."""

from pathlib import Path

import numpy as np
from tests.assess.plans import tiny

from titer.assess.estimate import _small, estimate, grid_text
from titer.assess.trial import open_trial

PLAN = """
name = "tiny"
trials = 1
attacks = ["fgsm"]
defenses = [{ defense = "randomized-activations" }]

[data]
name = "cytology"

[training]
epochs = 2

[[models]]
label = "mlp"
network = { name = "mlp", hidden = [8] }

[[threats]]
norm = "linf"
eps = [0.5]
unit = "sd"

[certification]
certifiers = ["crown"]
rows = 20

[explanation]
explainers = ["lime"]
"""


def test_a_randomised_model_has_a_cost_and_studies_are_named(tmp_path: Path) -> None:
    text = grid_text(tiny(tmp_path, PLAN))
    assert "defenses  none, randomized-activations" in text
    assert "studies   certification of every model (20 rows); explanation of none (100 rows): not in the cost" in text


def test_a_plan_of_attacks_alone_names_no_study(tmp_path: Path) -> None:
    assert "studies" not in grid_text(tiny(tmp_path, PLAN.partition("[certification]")[0]))


def test_an_ensemble_that_begins_with_a_least_perturbation_attack_is_costed_whole(tmp_path: Path) -> None:
    plain = PLAN.partition("[certification]")[0]
    alone = tiny(tmp_path, plain.replace('["fgsm"]', '["fmn"]'))
    ensemble = tiny(tmp_path, plain.replace('["fgsm"]', '[{ name = "worst-case", steps = 5, queries = 10 }]'))
    assert "skipped" not in grid_text(ensemble)
    minutes = [estimate(plan, open_trial(plan, 0, cache=tmp_path)).attacks for plan in (alone, ensemble)]
    assert minutes[0] > 0
    assert minutes[1] > 0


def test_the_rows_of_a_dry_run_hold_every_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 0, 1, 0, 1], [200, 40, 20, 10, 20, 10])
    part = np.repeat(["train", "validation", "test"], [240, 30, 30])
    x = (rng.normal(size=(300, 4)) + y[:, None]).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, y=y, split=part)
    text = PLAN.partition("[certification]")[0].replace('name = "cytology"', 'name = "arrays"\nfile = "rows.npz"')
    text = text.replace('"randomized-activations"', '{ name = "imbalance", method = "oversample" }')
    plan = tiny(tmp_path, text)
    trial = open_trial(plan, 0, cache=tmp_path)
    assert {0, 1} == set(_small(trial).train.y.tolist())
    assert "patients of each class" not in grid_text(plan)
