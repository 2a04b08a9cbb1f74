"""State a threat of your own: a small budget in few measures, hidden tumours only, and see which mask matters."""

import torch

import titer
from titer.threats.naming import goal
from titer.threats.rules import MutableMask

data = titer.load_data("cytology")
x, y, sd = data.pool.x, data.pool.y, data.pool.x.std(0)
centres = torch.stack([(x[y == k] / sd).mean(0) for k in (0, 1)])
net = torch.nn.Linear(30, 2)
net.load_state_dict({"weight": centres, "bias": -centres.square().sum(1) / 2})
model = titer.network_model("nearest centre", net, lambda raw: raw / sd, {})
pgd = titer.make("attacks", "pgd")
malignant = y == data.classes.index("malignant")

for name in ("radius", "texture", "concavity"):
    mask = torch.tensor([name in feature for feature in data.feature_names])
    threat = titer.Threat(
        family=f"{name} only",
        budget=titer.Linf(eps=1.0, scale=sd, unit="sd"),
        domain=(*data.domain, MutableMask(mask=mask, text=f"only {name} may change")),
        goal=goal("targeted:benign", data.classes, "goal"),
    )
    result = titer.attack_rows(pgd, model, x, y, threat)
    before, after = (missed[malignant].float().mean() for missed in (result.clean.classes != y, result.verdict.won))
    print(f"{name}: missed {before:.1%} -> {after:.1%}")
