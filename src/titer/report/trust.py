"""What speaks against the numbers: failed checks, skipped cells, proposals put back, few trials, low power."""

from __future__ import annotations

from typing import Any

from titer.report.format import join, percent
from titer.report.load import RunFolder
from titer.report.numbers import Numbers
from titer.report.skips import gaps, sentences
from titer.report.study import UNDEFENDED, WORST, Study

PUT_BACK_LIMIT = 0.05
POWER_WANTED = 0.8
FEW_SUBJECTS = 20
_WEAKER = (
    "This attack is weaker than another one proves possible: do not read its own numbers as robustness. The worst case "
    "counts the other one too, so it stands."
)
_UNCONFIRMED = "Its success rate may count accidents of one draw or of rounding, and so may the worst case."
_MEANINGS = {
    "successes-confirmed": _UNCONFIRMED,
    "certificate-contradicted": "Do not read the certified accuracy as that of the model’s own answers.",
}


def failures(run: RunFolder, model: str, defense: str) -> tuple[dict[str, Any], ...]:
    """Return the failed checks of a defence, under whatever threat; an unnamed model or defence means every one."""
    return tuple(check for check in _concerning(run, model, defense) if check.get("result") == "fail")


def checked(run: RunFolder, model: str, defense: str) -> bool:
    """Return whether at least one check gave a result on a defence: an unchecked number has not been doubted."""
    return any(check.get("result") in ("pass", "fail", "alarm") for check in _concerning(run, model, defense))


def alarms(run: RunFolder) -> tuple[dict[str, Any], ...]:
    """Return the alarms: checks that doubt one attack's own numbers, but not the worst case over all attacks."""
    return tuple(check for check in run.checks if check.get("result") == "alarm")


def _concerning(run: RunFolder, model: str, defense: str) -> list[dict[str, Any]]:
    return [
        check
        for check in run.checks
        if check.get("model") in (model, "", None) and check.get("defense") in (defense, "", None)
    ]


def cautions(run: RunFolder, study: Study, numbers: Numbers) -> tuple[str, ...]:
    """Return everything short of a failed check that weakens the numbers, one plain sentence each."""
    found = [
        *_unfinished(run, study),
        *_unchecked(run, study),
        *_alarmed(run, study),
        *sentences(gaps(run, study)),
        *_uneven(study, numbers),
        *_put_back(run, study),
        *_power(run),
        *map(str, run.statistics.get("warnings") or ()),
    ]
    return tuple(dict.fromkeys(found))


def _unfinished(run: RunFolder, study: Study) -> list[str]:
    found = []
    if not run.manifest.get("finished"):
        found.append("The run did not finish: what follows covers only the part that did.")
    if study.trials < 2:
        found.append(
            f"There is one trial only: the intervals cover the choice of {study.subject[1]}, not the chance in "
            "training and attack, and no test across trials is possible."
        )
    return found


def _unchecked(run: RunFolder, study: Study) -> list[str]:
    bare = [
        study.defense_title(defense)
        for defense in study.defenses
        if not all(checked(run, model, defense) for model in study.models)
    ]
    return [f"No check of the measurement itself gave a result for: {join(bare)}."] if bare else []


def _alarmed(run: RunFolder, study: Study) -> list[str]:
    """Return one sentence per check and attack with an alarm: where it went furthest past its limit, and how often."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for check in alarms(run):
        found.setdefault((str(check.get("check")), str(check.get("attack") or "")), []).append(check)
    return [_alarm(study, *key, some) for key, some in found.items()]


def _alarm(study: Study, name: str, attack: str, some: list[dict[str, Any]]) -> str:
    worst = max(some, key=lambda check: float(check.get("value") or 0.0) - float(check.get("limit") or 0.0))
    defense = study.defense_title(str(worst.get("defense") or "")) or "all defences"
    model = f"{worst.get('model')}, " if len(study.models) > 1 and worst.get("model") else ""
    where = ", ".join(filter(None, (f"{model}{defense}", str(worst.get("threat_family") or ""))))
    more = f"; {len(some)} alarms of this kind in all, see the checks below" if len(some) > 1 else ""
    who = study.attack_title(attack) if attack else name.replace("-", " ")
    meaning = _MEANINGS.get(name, _WEAKER)
    message = str(worst.get("message") or name).strip().rstrip(".")
    return f"Alarm about {who} ({where}{more}): {message}. {meaning}"


def _uneven(study: Study, numbers: Numbers) -> list[str]:
    """Return the defences that faced fewer adaptive attacks than the undefended model: their worst case flatters."""
    found = []
    for model in study.models:
        for defense in study.defenses:
            fewer = missing_attacks(study, numbers, model, defense)
            if fewer:
                found.append(
                    f"{study.defense_title(defense)} was not attacked by {join(fewer)} with knowledge of the defence, "
                    "as the undefended model was: its worst case covers fewer attacks and may flatter."
                )
    return found


def missing_attacks(study: Study, numbers: Numbers, model: str, defense: str, family: str = "") -> list[str]:
    """Return titles of the attacks at the largest budgets that hit the undefended model but never this defence."""
    missing: list[str] = []
    for one in [family] if family else study.families:
        threat = study.largest(one).label
        faced = numbers.attacks(model, defense, threat)
        missing += [study.attack_title(a) for a in numbers.attacks(model, UNDEFENDED, threat) if a not in faced]
    return list(dict.fromkeys(missing))


def _put_back(run: RunFolder, study: Study) -> list[str]:
    metrics = run.metrics
    rows = metrics[
        (metrics["group"] == "all") & (metrics["attack"] != "none") & (metrics["defense"] == metrics["source"])
    ]
    shares: dict[tuple[str, str], list[str]] = {}
    for key, part in rows[rows["attack"] != WORST].groupby(["attack", "threat", "defense"], sort=False):
        attack, threat, defense = map(str, key)
        share = float(part["put_back_share"].mean())
        if share > PUT_BACK_LIMIT:
            shares.setdefault((attack, threat), []).append(f"{study.defense_title(defense)} {percent(share)}")
    return [
        f"{study.attack_title(attack)} under {threat}: proposals that broke the rules of the threat were put back "
        f"({join(named)}). That points to a weak attack, not to a robust model."
        for (attack, threat), named in shares.items()
    ]


def _power(run: RunFolder) -> list[str]:
    if any("power" in str(warning) for warning in run.statistics.get("warnings") or ()):
        return []  # the statistics say it themselves
    rows = [row for name in ("before_after", "versus_undefended") for row in run.statistics.get(name) or []]
    known = [row["power"] for row in rows if row.get("power") is not None]
    low = sum(power < POWER_WANTED for power in known)
    if not low:
        return []
    return [
        f"Low power: {low} of {len(known)} comparisons had less than {percent(POWER_WANTED, 0)} power at the observed "
        "difference; there, no significant difference does not mean no difference (see Statistics)."
    ]
