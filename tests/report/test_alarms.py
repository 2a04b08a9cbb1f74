"""An alarm is told with its own mark and its own words, and is no failed check."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.reading import change_json, read_data, read_page
from titer.report.build import build

WEAK = "this attack's own numbers overestimate the robustness"
LESSER = "pgd fools up to 4.0% fewer of the patients than attacks of half its effort (fgsm)"
NEAREST = "an attack on a fixed budget fools up to {} more of the patients than fmn finds within that budget"
SHAKY = "a second prediction does not confirm 3.0% of the successes of fmn"


def alarm(check: str, attack: str, defense: str, message: str, value: float = 0.04, limit: float = 0.02) -> Any:
    named = {"check": check, "attack": attack, "model": "small-cnn", "defense": defense, "threat_family": "linf"}
    return named | {"result": "alarm", "value": value, "limit": limit, "message": message, "consequence": WEAK}


@pytest.fixture
def alarmed(copy: Any) -> Path:
    folder: Path = copy("brain")
    distances = "least-perturbation-no-worse-than-fixed-budget"
    more = [
        alarm("more-effort-no-worse", "pgd", "jpeg", LESSER),
        alarm(distances, "fmn", "none", NEAREST.format("7.0%"), 0.07, 0.05),
        alarm(distances, "fmn", "jpeg", NEAREST.format("9.0%"), 0.09, 0.05),
        alarm("successes-confirmed", "fmn", "none", SHAKY, 0.03, 0.0),
    ]
    change_json(folder / "sanity.json", lambda content: content["checks"].extend(more))
    build(folder)
    return folder


def test_alarms_are_cautions_on_the_first_page(alarmed: Path) -> None:
    cautions = [one for one in read_data(alarmed)["cautions"] if one.startswith("Alarm about")]
    first = read_page(alarmed).sections["summary"]
    assert all(one in first for one in cautions)
    assert cautions[0].startswith(
        f"Alarm about Projected gradient descent (PGD) (JPEG compression, linf): {LESSER}. This attack is weaker"
    )
    assert cautions[1].startswith(
        "Alarm about Fast minimum norm (FMN) (JPEG compression, linf; 2 alarms of this kind in all, see the checks "
        f"below): {NEAREST.format('9.0%')}. This attack is weaker than another one proves possible"
    )
    assert cautions[2].startswith(f"Alarm about Fast minimum norm (FMN) (No defence, linf): {SHAKY}. Its success rate")
    assert len(cautions) == 3


def test_an_alarm_is_no_failed_check(alarmed: Path, masters: dict[str, Path]) -> None:
    before, data, page = read_data(masters["brain"]), read_data(alarmed), read_page(alarmed)
    assert data["sanity"]["failures"] == []
    assert len(data["sanity"]["alarms"]) == 4
    assert [(row["mark"], row["failed"]) for row in data["defenses"]] == [
        (row["mark"], row["failed"]) for row in before["defenses"]
    ]
    assert any(row["mark"] for row in data["defenses"] if row["defense"] == "jpeg" or row["defense"].startswith("adv"))
    assert data["verdicts"] == before["verdicts"]
    assert "Robustness overestimated" not in page.sections["summary"]
    assert "not trusted" not in page.sections["defences"]


def test_the_checks_count_alarms_apart_and_mark_them(alarmed: Path) -> None:
    first = read_page(alarmed).sections["summary"]
    assert "No check of the measurement failed: 9 passed, 4 gave an alarm." in first
    assert "checks of the measurement passed" not in first
    assert "Every check of the measurement: 9 passed, 0 failed, 4 alarms" in first
    html = (alarmed / "report.html").read_text()
    marked = re.findall(r'<td class="alarmed"><span aria-hidden="true">▲</span> alarm</td>', html)
    assert len(marked) == 4
    assert 'class="failed"' not in html
    table = html[html.index("Checks that look for reasons") :]
    assert table.index("alarm</td>") < table.index("pass</td>"), "what raises a doubt comes first"
    assert "more-effort-no-worse<small>Projected gradient descent (PGD)</small>" in table


def test_a_failed_check_stays_one_beside_alarms(alarmed: Path) -> None:
    change_json(alarmed / "sanity.json", lambda content: content["checks"][0].update(result="fail"))
    build(alarmed)
    first = read_page(alarmed).sections["summary"]
    assert "Robustness overestimated: 1 check failed" in first
    assert "8 passed, 1 failed, 4 alarms" in first
    assert '<td class="failed"><span aria-hidden="true">✕</span> fail</td>' in (alarmed / "report.html").read_text()


def test_a_check_with_an_alarm_only_is_still_a_check(copy: Any) -> None:
    folder = copy("single")
    change_json(
        folder / "sanity.json",
        lambda content: content | {"checks": [one | {"result": "alarm"} for one in content["checks"]]},
    )
    build(folder)
    first = read_page(folder).sections["summary"]
    assert "No check of the measurement itself gave a result" not in first
    assert "Alarm about gradients not zero (No defence, linf; 2 alarms" in first
