"""Build a model around a network, attack it, and judge the result."""

import torch

import titer

data = titer.load_data("cytology")  # 569 patients, 30 measures each, raw units
x, y, sd = data.pool.x, data.pool.y, data.pool.x.std(0)
centres = torch.stack([(x[y == k] / sd).mean(0) for k in (0, 1)])
net = torch.nn.Linear(30, 2)  # any nn.Module; this one picks the class with the nearer centre
net.load_state_dict({"weight": centres, "bias": -centres.square().sum(1) / 2})
model = titer.network_model("nearest centre", net, lambda raw: raw / sd, {})
budget = titer.Linf(eps=0.25, scale=sd, unit="sd")  # each measure may change by a quarter of its SD
threat = titer.Threat(family="linf", budget=budget, domain=data.domain, goal=titer.AnyError())
result = titer.attack_rows(titer.make("attacks", "pgd"), model, x, y, threat)
clean = (result.clean.classes == y).float().mean()
print(f"right: {clean:.1%}, under attack: {result.robust_accuracy:.1%}")
