"""How numbers are written: one rule for every page, so that no rounding flatters.

A share is never rounded up to 100 % or down to 0 %; an unknown number is an en dash, never a zero.
"""

from __future__ import annotations

import math

UNKNOWN = "–"
NBSP = "\N{NO-BREAK SPACE}"
_EXACT = 1e-12


def known(value: float | None) -> bool:
    """Return whether `value` is a finite number."""
    return value is not None and math.isfinite(value)


def _share(value: float, digits: int) -> str:
    scaled = 100 * value
    text = f"{scaled:.{digits}f}"
    if value >= 1 - _EXACT:
        return "100"
    if abs(value) <= _EXACT:
        return "0"
    if float(text) >= 100:
        return f">{NBSP}{100 - 10**-digits:.{digits}f}"
    if float(text) == 0:
        return f"<{NBSP}{10**-digits:.{digits}f}"
    return text.replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share in [0, 1] as a percentage, or an en dash where it is unknown."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{_share(value, digits)}{NBSP}%"


def interval(low: float | None, high: float | None) -> str:
    """Write the bounds of a share as `12.1 to 18.4` (percent), or an en dash."""
    if low is None or high is None or not (known(low) and known(high)):
        return UNKNOWN
    return f"{_share(low, 1)}{NBSP}to{NBSP}{_share(high, 1)}"


def points(value: float | None) -> str:
    """Write a difference of two shares in percentage points, with its sign."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{100 * value:+.1f}"
    return "0.0 points" if float(text) == 0 else text.replace("-", "−") + f"{NBSP}points"


def p_value(value: float | None) -> str:
    """Write a p value: three decimals, `< 0.001` below that."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value < 0.001:
        return f"<{NBSP}0.001"
    return f">{NBSP}0.999" if value > 0.999 else f"{value:.3f}"


def p_phrase(value: float | None) -> str:
    """Write a p value for running text: `p < 0.001`, `p = 0.031`."""
    text = p_value(value)
    if text == UNKNOWN:
        return "p unknown"
    return f"p{NBSP}{text}" if text[0] in "<>" else f"p{NBSP}={NBSP}{text}"


def number(value: float | None, digits: int = 2) -> str:
    """Write a plain number with fixed decimals, or an en dash."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) != 0 else f"{0:.{digits}f}"


def general(value: float | None, digits: int = 4) -> str:
    """Write a number with `digits` significant figures and no trailing zeros, or an en dash."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.{digits}g}".replace("-", "−")


def count(value: float | None) -> str:
    """Write a whole number with thin groups of thousands, or an en dash."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def ratio(value: float | None) -> str:
    """Write a cost relative to the undefended model: `1.8 ×`, or an en dash."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2f}{NBSP}×" if value < 10 else f"{value:.0f}{NBSP}×"


def of_hundred(value: float | None) -> str:
    """Write a share as a natural frequency: the count among 100, `fewer than 1` for a rounded nought."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    rounded = round(100 * value)
    if rounded == 0 and value > _EXACT:
        return "fewer than 1"
    if rounded == 100 and value < 1 - _EXACT:
        return "more than 99"
    return str(rounded)


def duration(seconds: float | None) -> str:
    """Write seconds as a person would: `8.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.3g}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def join(words: list[str], last: str = "and") -> str:
    """Write a list as `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""
