"""Each fault of the page names tests, and each test that it names is there."""

import re
from functools import cache

import pytest

from tests.docs.pages import REFERENCE, ROOT

PAGE = REFERENCE / "guard-faults.md"
_ROW = re.compile(r"^\| (?!fault |---|\| )(.+) \|$", re.MULTILINE)
_NAME = re.compile(r"`(test_\w+)`")


@cache
def _tests() -> frozenset[str]:
    found = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
    return frozenset(name for path in (ROOT / "tests").rglob("test_*.py") for name in found.findall(path.read_text()))


def _faults() -> list[str]:
    return _ROW.findall(PAGE.read_text())


def test_the_page_has_the_faults() -> None:
    assert len(_faults()) > 40


@pytest.mark.parametrize("row", _faults(), ids=lambda row: row.partition(" |")[0])
def test_a_fault_names_tests_that_are_there(row: str) -> None:
    named = _NAME.findall(row.rpartition(" | ")[2])
    assert named, row
    assert set(named) <= _tests()


@pytest.mark.parametrize("script", re.findall(r"`(benchmarks/\w+\.py) ", PAGE.read_text()))
def test_what_runs_at_length_is_in_make_bench_guard(script: str) -> None:
    assert (ROOT / script).is_file()
    assert f"python {script}" in (ROOT / "Makefile").read_text()
