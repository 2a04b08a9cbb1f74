"""The registry: specs are checked before anything runs, and outside packages add plugins."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import pytest

from titer.core.errors import ContractError, SpecError
from titer.core.plugins import Count, Positive, Share, attack, make, make_attack, plugin
from titer.core.registry import SHELVES, Plugin, Shelf, parse

SOURCES = Path(__file__).parents[2] / "src"


def _factory(
    *, steps: Count = 3, step: Positive = 0.5, share: Share = 0.1, norm: Literal["l2", "l1"] = "l2", unit: str
) -> Any:
    """A factory."""
    return (steps, step, share, norm, unit)


PLUGIN = Plugin(name="toy", shelf="attacks", factory=_factory, title="A factory")


def test_settings_are_the_signature():
    assert [(s.name, s.kind, s.default) for s in PLUGIN.settings()] == [
        ("steps", "int", 3),
        ("step", "float", 0.5),
        ("share", "float", 0.1),
        ("norm", "Literal['l2', 'l1']", "l2"),
        ("unit", "str", ...),
    ]


def test_defaults_are_filled_in():
    assert PLUGIN.check({"unit": "sd", "step": 1}, "here") == {
        "steps": 3,
        "step": 1.0,
        "share": 0.1,
        "norm": "l2",
        "unit": "sd",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": "sd", "nrom": 3}, r"here\.nrom = 3 is not a known key: allowed are .*; did you mean 'norm'\?"),
        ({"unit": "sd", "steps": "many"}, r"here\.steps = 'many' is not allowed: .*integer"),
        ({"unit": "sd", "steps": 2.5}, r"here\.steps = 2.5 is not allowed"),
        ({"unit": "sd", "steps": 0}, r"here\.steps = 0 is not allowed: .*greater than or equal to 1"),
        ({"unit": "sd", "step": float("inf")}, r"here\.step = inf is not allowed"),
        ({"unit": "sd", "share": 1.0}, r"here\.share = 1.0 is not allowed: .*less than 1"),
        ({"unit": "sd", "norm": "l3"}, r"here\.norm = 'l3' is not allowed: .*'l2' or 'l1'"),
        ({}, r"here\.unit is missing: it is required"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(settings, message):
    with pytest.raises(SpecError, match=message):
        PLUGIN.check(settings, "here")


def test_every_bad_setting_is_named_at_once():
    with pytest.raises(SpecError, match=r"here\.steps = 0.*; .*here\.norm = 'l3'.*; .*here\.extra = 1"):
        PLUGIN.check({"unit": "sd", "steps": 0, "norm": "l3", "extra": 1}, "here")


@pytest.mark.parametrize(
    ("shelf", "name", "meant"),
    [("attacks", "pdg", "pgd"), ("defenses", "jpg", "jpeg"), ("networks", "resnet-18", "resnet18")],
)
def test_a_misspelt_name_gets_the_nearest(shelf, name, meant):
    with pytest.raises(SpecError, match=rf"here = '{name}' is not known: allowed are .*did you mean '{meant}'"):
        make(shelf, name, "here")


def test_a_name_like_none_gets_no_suggestion():
    with pytest.raises(SpecError) as raised:
        make_attack("zzzz")
    assert "did you mean" not in str(raised.value)


def test_a_spec_is_a_name_or_a_table_with_one():
    assert parse("pgd", "here") == ("pgd", {})
    table = {"name": "pgd", "steps": 3}
    assert parse(table, "here") == ("pgd", {"steps": 3})
    assert table == {"name": "pgd", "steps": 3}
    for wrong in ({"steps": 3}, {"name": 3}):
        with pytest.raises(SpecError, match=r"here = .* is not allowed: a plugin is a name or a table"):
            parse(wrong, "here")


def test_two_plugins_of_one_name_are_a_bug():
    def other() -> Any:
        """Another factory."""

    other.__module__ = "elsewhere"
    shelf = Shelf("attacks")
    shelf.add(PLUGIN)
    shelf.add(PLUGIN)
    with pytest.raises(ContractError, match=r"two plugins of the shelf 'attacks' are called 'toy': .*elsewhere"):
        shelf.add(Plugin(name="toy", shelf="attacks", factory=other, title="Another"))


def test_a_plugin_of_titer_is_named_as_its_file():
    def square() -> Any:
        """Square attack."""

    square.__module__ = "titer.attacks.square"
    with pytest.raises(ContractError, match=r"'sqare' stands in square\.py: a plugin is named as its file"):
        attack("sqare", paper="", threat_ids=())(square)
    assert "sqare" not in SHELVES["attacks"].all()


def test_a_minimal_attack_says_so():
    assert "minimal" in plugin("attacks", "deepfool").traits
    assert "minimal" not in plugin("attacks", {"name": "pgd", "steps": 3}).traits


OUTSIDE = '''
from titer.core.plugins import attack, Count

@attack("{name}", paper="none", threat_ids=("NISTAML.022",))
def outside(*, steps: Count = 2):
    """An attack of another package.

    Args:
        steps: how many.
    """
    return lambda model, x, y, threat, *, rng: x
'''


def _outside(tmp_path: Path, name: str, code: str) -> subprocess.CompletedProcess[str]:
    """Install a package with an entry point and run code in a process of its own."""
    (tmp_path / "outside_titer.py").write_text(OUTSIDE.format(name=name))
    info = tmp_path / "outside_titer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-titer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[titer.attacks]\n{name} = outside_titer:outside\n")
    path = os.pathsep.join([str(tmp_path), str(SOURCES)])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_outside_package_adds_an_attack(tmp_path):
    code = """
    from titer.core.plugins import make_attack, plugin
    from titer.core.registry import SHELVES
    print(sorted(SHELVES["attacks"].all()))
    print(plugin("attacks", "outside").title, make_attack({"name": "outside", "steps": 5}) is not None)
    """
    done = _outside(tmp_path, "outside", code)
    assert done.returncode == 0, done.stderr
    names, made = done.stdout.splitlines()
    assert "'outside'" in names
    assert "'pgd'" in names
    assert made == "An attack of another package True"


def test_an_outside_package_may_not_take_a_name(tmp_path):
    done = _outside(tmp_path, "pgd", "from titer.core.plugins import make_attack\nmake_attack('pgd')")
    assert done.returncode == 1
    assert "two plugins of the shelf 'attacks' are called 'pgd': titer.attacks.pgd and outside_titer" in done.stderr
