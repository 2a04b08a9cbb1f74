"""State a threat of your own: a small budget in few measures, hidden tumours only, and see which mask matters."""

import torch

import titer
from titer.assess.judge import predict, propose, verdict
from titer.core.randomness import generator
from titer.threats.goals import goal
from titer.threats.rules import MutableMask

data = titer.make("modalities", "cytology")()
x, y, sd = data.pool.x, data.pool.y, data.pool.x.std(0)
centres = torch.stack([(x[y == k] / sd).mean(0) for k in (0, 1)])
net = torch.nn.Linear(30, 2)
net.load_state_dict({"weight": centres, "bias": -centres.square().sum(1) / 2})
model = titer.network_model("nearest centre", net, lambda raw: raw / sd, {})
pgd = titer.make("attacks", "pgd")
clean = predict(model, x, rng=generator(0))
malignant = y == data.classes.index("malignant")

for name in ("radius", "texture", "concavity"):
    mask = torch.tensor([name in feature for feature in data.feature_names])
    threat = titer.Threat(
        family=f"{name} only",
        budget=titer.Linf(eps=1.0, scale=sd, unit="sd"),
        domain=(*data.domain, MutableMask(mask=mask, text=f"only {name} may change")),
        goal=goal("targeted:benign", data.classes, "goal"),
    )
    won = threat.goal.won(torch.nn.functional.one_hot(clean.classes, 2), y)
    found = propose(pgd, model, x, y, threat, won, minimal=False, rng=generator(1, name))
    result = verdict(model, x, y, clean, found, threat, minimal=False, rng=generator(2, name))
    print(f"{name}: missed {won[malignant].float().mean():.1%} -> {result.won[malignant].float().mean():.1%}")
