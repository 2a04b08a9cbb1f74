"""Numbers as they are written: nothing is rounded to certainty."""

from __future__ import annotations

import math

import pytest

from titer.report import format as form
from titer.report.numbers import Estimate
from titer.report.study import Threat
from titer.report.wording import estimate, lower_first, threat_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.152, "15.2 %"),
        (0.99971, "> 99.9 %"),
        (0.9989, "99.9 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.0002, "< 0.1 %"),
        (-0.053, "−5.3 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_percent(value: float | None, text: str) -> None:
    assert form.percent(value).replace(form.NBSP, " ") == text


def test_estimate_with_and_without_interval() -> None:
    assert estimate(Estimate(0.152, 0.121, 0.184)).replace(form.NBSP, " ") == "15.2 % (12.1 to 18.4)"
    assert estimate(Estimate(0.152)).replace(form.NBSP, " ") == "15.2 % (no CI)"
    assert estimate(Estimate()) == "–"


@pytest.mark.parametrize(("value", "text"), [(0.0004, "< 0.001"), (0.0312, "0.031"), (0.99991, "> 0.999"), (None, "–")])
def test_p_value(value: float | None, text: str) -> None:
    assert form.p_value(value).replace(form.NBSP, " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.03, "3"), (0.002, "fewer than 1"), (0.9981, "more than 99"), (1.0, "100"), (0.0, "0")]
)
def test_of_hundred(value: float, text: str) -> None:
    assert form.of_hundred(value) == text


@pytest.mark.parametrize(
    ("norm", "eps", "unit", "kind", "words"),
    [
        ("linf", 8.0, "/255", "image", "changes of at most 8 grey levels (of 255) per pixel"),
        ("linf", 1.0, "sd", "table", "changes of at most 1 standard deviation per measured value"),
        ("l0", 3.0, "", "table", "changes to at most 3 measured values"),
        ("l1", 2.0, "mV", "signal", "changes that add up to at most 2 millivolts over all samples"),
        ("words", 2.0, "", "text", "the changes that the threat “x” allows"),
    ],
)
def test_threats_are_spelt_out(norm: str, eps: float, unit: str, kind: str, words: str) -> None:
    threat = Threat("x", "x", norm, eps, unit, "gradient", "any-error", ())
    assert threat_words(threat, kind) == words


def test_abbreviations_keep_their_capitals() -> None:
    assert lower_first("JPEG compression") == "JPEG compression"
    assert lower_first("Adversarial training") == "adversarial training"
