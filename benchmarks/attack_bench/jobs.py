"""The jobs of the table: which attack, on which rows, by whom, and what Titer is asked to reach.

Runs in the peers' environment too: data only. Titer's side of each job is one dictionary, `TITER`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHEST = ("cnn", "cnn-at", "resnet18", "resnet18-at")
EVERY = ("8", "mid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One table.

    `levels` names the budgets: `8` is 8/255, `mid` the eps at which the model keeps 30 to 60 % under PGD, `none` a
    least-perturbation attack. `steps` are the nominal ones, which the bound counts; None where there are none. `also`
    names jobs whose peers are shown too, since Titer's attack is to be compared with them. `rows` caps the rows.
    """

    title: str
    reach: str
    norm: str
    subjects: tuple[str, ...]
    levels: tuple[str, ...]
    peers: tuple[str, ...]
    steps: int | None = None
    queries: bool = False
    also: tuple[str, ...] = ()
    rows: int | None = None
    note: str = ""


JOBS: dict[str, Job] = {
    "pgd": Job(
        title="PGD-40, Linf, random start, step eps / 10",
        reach="<= 0.50 x bound in float32, <= 0.30 x with bf16; robust accuracy within one image of the best peer",
        norm="linf",
        subjects=CHEST,
        levels=EVERY,
        peers=("foolbox", "torchattacks", "art", "adv-lib", "secml-torch", "cleverhans"),
        steps=40,
    ),
    "apgd": Job(
        title="APGD-100, cross-entropy, Linf, one start",
        reach="<= 0.35 x bound in float32, <= 0.20 x with bf16; same robust accuracy",
        norm="linf",
        subjects=CHEST,
        levels=EVERY,
        peers=("torchattacks", "art", "adv-lib"),
        steps=100,
    ),
    "default": Job(
        title="Default attack: APGD-25, then APGD-25 on a margin loss valid for two classes",
        reach="at least every peer's strength in at most 0.7 x the cheapest peer's PGD-40 time",
        norm="linf",
        subjects=CHEST,
        levels=EVERY,
        peers=(),
        steps=50,
        also=("pgd", "apgd"),
    ),
    "least-norm": Job(
        title="Least L2 norm, 100 steps (C&W: 5 x 100)",
        reach="median L2 <= the best peer's C&W at <= 0.25 x its time; <= 1.2 x the 100-step bound",
        norm="l2",
        subjects=("cnn", "cnn-at"),
        levels=("none",),
        peers=("foolbox ddn", "foolbox fmn", "adv-lib ddn", "adv-lib fmn", "secml-torch ddn", "secml-torch fmn"),
        steps=100,
        also=("carlini-wagner",),
        rows=100,
    ),
    "carlini-wagner": Job(
        title="Carlini-Wagner L2, 5 x 100, c0 = 1, rate 0.01",
        reach="<= 0.8 x bound, L2 within 1 % of the best",
        norm="l2",
        subjects=("cnn", "cnn-at"),
        levels=("none",),
        peers=("foolbox", "torchattacks", "art", "adv-lib", "cleverhans"),
        steps=500,
        rows=100,
        note="torchattacks has no search over c: 500 steps at c = 1",
    ),
    "deepfool": Job(
        title="DeepFool, L2, 50 steps, overshoot 0.02",
        reach="<= 1.1 x adv-lib's time",
        norm="l2",
        subjects=("cnn", "cnn-at"),
        levels=("none",),
        peers=("foolbox", "torchattacks", "art", "adv-lib", "adv-lib superdeepfool"),
    ),
    "jsma": Job(
        title="JSMA, theta 1, gamma 0.1",
        reach="<= 0.3 x ART's time, memory O(d)",
        norm="l0",
        subjects=("cnn",),
        levels=("none",),
        peers=("art", "torchattacks"),
        rows=200,
        note="torchattacks is given the target class, as its own choice (label + 1) % 10 is no class here",
    ),
    "square": Job(
        title="Square, Linf, 500 queries (Titer also with 400, where its success is nearest the peers')",
        reach="<= 0.6 x torchattacks' time; <= 1.3 x the forward floor; median queries no higher at equal success",
        norm="linf",
        subjects=("cnn", "cnn-at"),
        levels=("mid",),
        peers=("torchattacks", "art"),
        queries=True,
    ),
    "hopskipjump": Job(
        title="HopSkipJump, L2, 10 iterations, 100 first evaluations",
        reach="<= 0.6 x cleverhans' time; <= 1.3 x the forward floor; median queries no higher at equal success",
        norm="l2",
        subjects=("cnn",),
        levels=("none",),
        peers=("foolbox", "art", "cleverhans"),
        queries=True,
        rows=50,
    ),
    "boundary": Job(
        title="Boundary, L2, about 2,000 queries",
        reach="<= 1.3 x the forward floor; median queries no higher at equal success",
        norm="l2",
        subjects=("cnn",),
        levels=("none",),
        peers=("foolbox", "art"),
        queries=True,
        rows=50,
    ),
    "worst-four": Job(
        title="Worst case, 4-class brain MRI, Linf: AutoAttack with sub-attacks of 100 steps",
        reach="<= 1/3 of torchattacks' CPU time, robust accuracy no more than 0.2 points above",
        norm="linf",
        subjects=("brain-mri", "brain-mri-at"),
        levels=("mid",),
        peers=("torchattacks",),
        rows=100,
    ),
    "worst-binary": Job(
        title="Worst case, binary X-ray, Linf",
        reach="runs; never weaker than any single attack of any peer",
        norm="linf",
        subjects=CHEST,
        levels=EVERY,
        peers=("torchattacks",),
        also=("pgd", "apgd", "square"),
    ),
}


_PGD = {"name": "pgd", "steps": 40, "step": 0.1}
_APGD = {"name": "apgd", "steps": 100}
_SHORT = {"name": "apgd", "steps": 25}
_DEFAULT = {"name": "worst-case", "attacks": [_SHORT, {**_SHORT, "loss": "margin"}]}
_DDN, _FMN = {"name": "ddn", "steps": 100}, {"name": "fmn", "steps": 100}
_WORST = {"name": "worst-case"}

TITER: dict[str, dict[str, Any]] = {
    "pgd": {"titer": _PGD, "titer bf16": _PGD},
    "apgd": {"titer": _APGD, "titer bf16": _APGD},
    "default": {"titer": _DEFAULT, "titer bf16": _DEFAULT},
    "least-norm": {"titer ddn": _DDN, "titer fmn": _FMN},
    "carlini-wagner": {"titer": {"name": "carlini-wagner", "searches": 5, "steps": 100}},
    "deepfool": {"titer": {"name": "deepfool", "steps": 50, "overshoot": 0.02}},
    "jsma": {"titer": {"name": "jsma"}},
    "square": {
        "titer": {"name": "square", "queries": 500},
        "titer 400 queries": {"name": "square", "queries": 400},
    },
    "hopskipjump": {"titer": {"name": "hopskipjump", "queries": 2400}},
    "boundary": {"titer": {"name": "boundary", "queries": 2000}},
    "worst-four": {"titer": _WORST, "titer bf16": _WORST},
    "worst-binary": {"titer": _WORST, "titer bf16": _WORST},
}
"""Titer's attack of each job, under the label that the table shows; `bf16` searches in bfloat16."""

ACCESS: dict[str, str] = {"square": "scores", "hopskipjump": "decision", "boundary": "decision"}
"""What Titer's attacker may see, where it is less than the gradient."""
