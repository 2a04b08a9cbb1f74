"""A person who adds an attack in one file has it tested by the contract suite, and nothing else is edited."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = '''
"""One random corner of the budget."""

from titer.core.needs import Needs
from titer.core.plugins import Positive, attack
from titer.engine.ascent import Ascent, ascend


@attack(
    "corner", paper="Nobody 2026, eq. 1", threat_ids=("NISTAML.022",), needs=Needs(norms=("linf",), any_error_only=True)
)
def corner(*, share: Positive = 1.0):
    """Steepest corner of the budget.

    Args:
        share: of the budget.
    """

    def start(rows, restart):
        return {"x_adv": rows.x.clone()}

    def step(rows, state, seen, count):
        moved = rows.threat.budget.ascend(state["x_adv"], seen.grad, share * rows.threat.budget.eps)
        return {"x_adv": rows.threat.project(moved, rows.x)}

    ascent = Ascent(steps=1, start=start, step=step)
    return lambda model, x, y, threat, *, rng: ascend(model, x, y, threat, ascent, rng=rng)
'''
BROKEN = GOOD.replace("rows.threat.project(moved, rows.x)", "rows.x + 0 * moved")


@pytest.mark.parametrize(("code", "passes"), [(GOOD, True), (BROKEN, False)])
def test_an_attack_in_one_file_is_under_contract(code, passes, tmp_path):
    (tmp_path / "corner.py").write_text(code)
    info = tmp_path / "corner-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corner\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[titer.attacks]\ncorner = corner:corner\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "corner",
         "tests/contracts/test_attacks.py", "tests/contracts/test_shelves.py"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip
    assert (run.returncode == 0) == passes, run.stdout[-3000:]
    assert "corner" in run.stdout if not passes else "passed" in run.stdout
