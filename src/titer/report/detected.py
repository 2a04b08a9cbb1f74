"""What detectors see, and what an attacker who knows them gets through: the numbers of the study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from titer.report.detected_numbers import auroc, over_trials, share, thresholded, unnoticed
from titer.report.load import RunFolder, StudyRows
from titer.report.numbers import NOTHING, Estimate
from titer.report.study import WORST, Study

TOGETHER = "all together"
RATES = (0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Watched:
    """One detector, or all together, on one defended model, without attack.

    Attributes:
        model: the base model.
        defense: label of its defence.
        detector: the detector's label; `all together` is the guard of the plan.
        title: its name in words.
        looks_at: what it looks at, in a few words.
        of: what is asked together; empty for one detector.
        rate: the false-positive rate that thresholds were set for.
        alarms: the share of clean test rows with an alarm, at `rate` and at 1 % and 5 %, by the rate as text.
        holds: whether the test rows are compatible with `rate`; None where they cannot tell.
        ratio: time of model and detector over that of the model alone, one input at a time.
        reason: why there is no such detector on this model; empty where there is.
    """

    model: str
    defense: str
    detector: str
    title: str
    looks_at: str
    of: tuple[str, ...]
    rate: float
    alarms: dict[str, Estimate] = field(hash=False)
    holds: bool | None
    ratio: Estimate
    reason: str


@dataclass(frozen=True, slots=True)
class Caught:
    """One detector against the finds of one attack, or of all (`worst-case`), under one threat.

    Attributes:
        model: the base model.
        defense: label of its defence.
        detector: the detector's label.
        attack: the attack's label; `worst-case`: a row is lost where any attack gets through.
        threat: the threat's label.
        family: the threat's family.
        finds: inputs that fooled the model, in all trials.
        success: share of the rows at stake that are fooled where nobody watches, by any find of any attacker.
        auroc: of the finds of an attacker who does not know the detectors, against clean rows.
        caught: share of these finds with an alarm, at each rate as text.
        unnoticed: share of the rows at stake that are fooled without an alarm, not knowing the detectors.
        adaptive: the same, by an attacker who knows them; nothing below the largest budget of a family.
        adaptive_caught: share of what this attacker ends with, where the model is wrong, that has an alarm.
        reason: why no attacker who knows the detectors was tried; empty where one was.
    """

    model: str
    defense: str
    detector: str
    attack: str
    threat: str
    family: str
    finds: int
    success: Estimate
    auroc: Estimate
    caught: dict[str, Estimate] = field(hash=False)
    unnoticed: Estimate
    adaptive: Estimate
    adaptive_caught: Estimate
    reason: str


@dataclass(frozen=True, slots=True)
class Streamed:
    """A detector of streams: the share of batches with an alarm, and the first such batch in each trial."""

    model: str
    defense: str
    detector: str
    title: str
    threat: str
    share: float
    batch: int
    looks: int
    raised: Estimate
    first: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Detected:
    """The numbers of the study; they stand in `report.json` as they are here."""

    watched: tuple[Watched, ...]
    caught: tuple[Caught, ...]
    streams: tuple[Streamed, ...]
    skipped: tuple[str, ...]

    def of(self, model: str, defense: str) -> tuple[Watched, ...]:
        """Return the detectors of one defended model, in the plan's order."""
        return tuple(one for one in self.watched if (one.model, one.defense) == (model, defense))

    def against(self, watched: Watched, threat: str, attack: str = WORST) -> Caught | None:
        """Return what one detector did against one attack under one threat."""
        key = (watched.model, watched.defense, watched.detector, attack, threat)
        found = ((c.model, c.defense, c.detector, c.attack, c.threat) for c in self.caught)
        return next((c for c, one in zip(self.caught, found, strict=True) if one == key), None)


def detected(run: RunFolder, study: Study) -> Detected | None:
    """Draw the numbers from `run`; None where the plan did not ask."""
    kept = run.studies.get("detection")
    if kept is None:
        return None
    watched = tuple(_watched(kept))
    reasons = (f"{part.get('title') or part['defense']}: {part['skipped']}" for part in kept.parts if "skipped" in part)
    return Detected(
        watched=watched,
        caught=tuple(one for each in watched if not each.reason for one in _caught(kept, study, each)),
        streams=tuple(_streams(kept)),
        skipped=tuple(dict.fromkeys(reasons)),
    )


def _watched(kept: StudyRows) -> Iterator[Watched]:
    """Yield every detector of every defended model, in the order of the plan."""
    notes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    rates: dict[tuple[str, str], float] = {}
    for part in kept.parts:
        for said in part.get("facts", {}).get("detectors", ()):
            notes.setdefault((part["model"], part["defense"], str(said["label"])), []).append(said)
            rates[part["model"], part["defense"]] = float(part["facts"]["rate"])
    for (model, defense, label), said in notes.items():
        rate, rows = rates[model, defense], _rows(kept, model, defense, label)
        alarms = {f"{one:g}": _alarms(rows, one, rate) for one in sorted({rate, *RATES})} if len(rows) else {}
        own = alarms.get(f"{rate:g}", NOTHING)
        yield Watched(
            model=model,
            defense=defense,
            detector=label,
            title=_title(label, said[0].get("name", TOGETHER)),
            looks_at=str(said[0].get("title") or ""),
            of=tuple(said[0].get("of") or ()),
            rate=rate,
            alarms=alarms,
            holds=None if own.low is None else own.low <= rate,
            ratio=over_trials([float(one["latency"]["ratio"]) for one in said if "latency" in one]),
            reason="" if len(rows) else str(next((one["refused"] for one in said if "refused" in one), "no result")),
        )


def _title(label: str, name: str) -> str:
    """Return `nearest-neighbour (neighbours = 5)` as `Nearest neighbour (neighbours = 5)`; a user's label as it is."""
    if not name or not label.startswith(name):
        return label
    words = name.replace("-", " ")
    return words[:1].upper() + words[1:] + label.removeprefix(name)


def _rows(kept: StudyRows, model: str, defense: str, detector: str) -> pd.DataFrame:
    rows = kept.rows
    if not len(rows):
        return rows
    mine = (rows["model"] == model) & (rows["defense"] == defense) & (rows["detector"] == detector)
    return rows[mine & (rows["part"] != "stream")]


def _alarms(rows: pd.DataFrame, rate: float, stated: float) -> Estimate:
    """Return the share of clean test rows with an alarm at a nominal rate."""
    clean = rows[(rows["part"] == "test") & (rows["attack"] == "none")]
    return share(thresholded(clean, rows, None if rate == stated else rate))


def _caught(kept: StudyRows, study: Study, watched: Watched) -> Iterator[Caught]:
    rows = _rows(kept, watched.model, watched.defense, watched.detector)
    attacked = rows[rows["attack"] != "none"]
    labels = list(dict.fromkeys(attacked["attack"]))
    for threat in (one for ladder in study.families.values() for one in ladder):
        some = attacked[attacked["threat"] == threat.label]
        for attack in [WORST, *labels] if len(some) else []:
            mine = some if attack == WORST else some[some["attack"] == attack]
            if len(mine):
                why = _reason(kept, watched, attack, threat.label) if threat == study.largest(threat.family) else ""
                success = unnoticed(_finds(kept, watched, attack, threat.label), watching=False)
                yield _one(watched, rows, mine, attack, (threat.label, threat.family), success, why)


def _finds(kept: StudyRows, watched: Watched, attack: str, threat: str) -> pd.DataFrame:
    """Return what any attacker showed the defended model under one threat, whichever detectors he knew."""
    rows = kept.rows
    mine = (rows["model"] == watched.model) & (rows["defense"] == watched.defense) & (rows["threat"] == threat)
    own = rows["attack"] != "none" if attack == WORST else rows["attack"] == attack
    return rows[mine & own & (rows["part"] == "test")]


def _one(
    watched: Watched,
    rows: pd.DataFrame,
    mine: pd.DataFrame,
    attack: str,
    threat: tuple[str, str],
    success: Estimate,
    reason: str,
) -> Caught:
    plain, knowing = mine[~mine["adaptive"].astype(bool)], mine[mine["adaptive"].astype(bool)]
    finds = plain[plain["won"].astype(bool)]
    wrong = knowing[knowing["won"].astype(bool)]
    rates = sorted({watched.rate, *RATES})
    return Caught(
        model=watched.model,
        defense=watched.defense,
        detector=watched.detector,
        attack=attack,
        threat=threat[0],
        family=threat[1],
        finds=len(finds),
        success=success,
        auroc=auroc(rows[(rows["part"] == "test") & (rows["attack"] == "none")], finds),
        caught={f"{one:g}": share(thresholded(finds, rows, None if one == watched.rate else one)) for one in rates},
        unnoticed=unnoticed(plain),
        # who knows the detectors may try every find of who does not
        adaptive=unnoticed(mine) if len(knowing) else NOTHING,
        adaptive_caught=share(wrong.assign(alarm=wrong["raised"])),
        reason="" if len(knowing) else reason,
    )


def _reason(kept: StudyRows, watched: Watched, attack: str, threat: str) -> str:
    """Return why no attacker who knows the detector was tried."""
    for part in kept.parts:
        spec = part.get("spec") or {}
        mine = (part.get("model"), part.get("defense"), spec.get("label")) == (
            watched.model, watched.defense, watched.detector,
        )  # fmt: skip
        named = attack == WORST or part["title"].startswith(f"{attack}, {threat}")
        if mine and named and "skipped" in part:
            return str(part["skipped"])
    return ""


def _streams(kept: StudyRows) -> Iterator[Streamed]:
    if not len(kept.rows) or "share" not in kept.rows:
        return
    facts = {part["title"]: part["facts"] for part in kept.parts if "looks" in part.get("facts", {})}
    rows = kept.rows[kept.rows["part"] == "stream"]
    for (model, defense, label, portion), some in rows.groupby(["model", "defense", "detector", "share"], sort=False):
        said = facts.get(f"{label}, a stream", {})
        yield Streamed(
            model=str(model),
            defense=str(defense),
            detector=str(label),
            title=_title(str(label), said.get("name", "")),
            threat=str(some["threat"].iloc[0]),
            share=float(str(portion)),
            batch=int(said.get("batch", 0)),
            looks=int(said.get("looks", 0)),
            # batches are drawn from the same rows, and looks share one reference: only trials are independent
            raised=over_trials([float(one["raised"].astype(bool).mean()) for _, one in some.groupby("trial")], 1.0),
            first=tuple(_first(one) for _, one in some.groupby("trial")),
        )


def _first(rows: pd.DataFrame) -> int | None:
    """Return how many batches were looked at when the first alarm came."""
    seen = rows[rows["raised"].astype(bool)]["batch"]
    return int(seen.min()) + 1 if len(seen) else None
