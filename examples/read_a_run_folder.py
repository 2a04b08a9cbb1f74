"""Assess a tiny plan in the current directory, then read what the run folder says."""

import json
from pathlib import Path

import pandas as pd

from titer.assess.plan import load_plan
from titer.assess.run import assess
from titer.report.build import build

Path("tiny.toml").write_text("""
name = "tiny"
trials = 2
attacks = ["fgsm", { name = "pgd", steps = 20 }]
data = { name = "cytology" }
training = { epochs = 5, learning_rate = 0.005 }
models = [{ label = "mlp", network = "mlp" }]
threats = [{ norm = "linf", eps = [0.25], unit = "sd" }]
""")
folder = assess(load_plan("tiny.toml"), Path("runs/tiny"), workers=1)

metrics = pd.read_parquet(folder / "metrics.parquet")
overall = metrics[(metrics["group"] == "all") & (metrics["source"] == metrics["defense"])]
print(overall.pivot_table(index=["model", "defense"], columns=["threat", "attack"], values="accuracy").round(3))

outcomes = pd.read_parquet(folder / "outcomes.parquet")
attacked = outcomes[outcomes["attack"] != "none"]
fooled = attacked[attacked["won"] & (attacked["clean_prediction"] == attacked["label"])]
print("patients fooled most often:", fooled["patient_id"].value_counts().head(3).index.tolist())

checks = json.loads((folder / "sanity.json").read_text())["checks"]
print("failed checks:", [f"{one['defense']}: {one['check']}" for one in checks if one["result"] == "fail"])
print("report:", build(folder))
