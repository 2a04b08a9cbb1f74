"""What a dry run tells of plans with randomised models and with studies."""

from pathlib import Path

from tests.assess.plans import tiny

from titer.assess.estimate import grid_text

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
