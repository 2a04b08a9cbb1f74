"""Goals by the names that plans give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from titer.core.errors import SpecError
from titer.core.outputs import LARGEST_DICE_ERROR, Output
from titer.core.threat import Goal
from titer.threats.goals import AnyError, Hidden, HighestLoss, Targeted
from titer.threats.mask_goals import LowDice, Missed, Moved, Shrunk, mask_error
from titer.threats.output_goals import AnyFinding, Endless, OneFinding, Shifted, absolute_error, log_binary_loss

_ANY = "any-error"
_OF_A_CLASS: dict[str, Callable[[int, str], Goal]] = {"targeted": Targeted, "hide": Hidden, "invent": Targeted}
_OF_A_FINDING: dict[str, Callable[[int, str], Goal]] = {
    "hide": lambda finding, name: OneFinding(finding, True, name),
    "invent": lambda finding, name: OneFinding(finding, False, name),
}
_OF_A_VALUE: dict[str, Callable[[float, str], Goal]] = {
    "shift": lambda tolerance, name: Shifted(tolerance, "shift", name),
    "raise": lambda tolerance, name: Shifted(tolerance, "raise", name),
    "lower": lambda tolerance, name: Shifted(tolerance, "lower", name),
}
_OF_A_MASK: dict[str, Callable[[float, str], Goal]] = {"dice": LowDice, "shrink": Shrunk, "move": Moved}
_BY_NAME: dict[Output, dict[str, Callable[[int, str], Goal]]] = {
    "classes": _OF_A_CLASS,
    "labels": _OF_A_FINDING,
    "mask": {"hide": Missed},
}
_BY_NUMBER: dict[Output, dict[str, Callable[[float, str], Goal]]] = {"value": _OF_A_VALUE, "mask": _OF_A_MASK}
_LARGEST: dict[Output, Callable[[Tensor, Tensor], Tensor]] = {
    "labels": log_binary_loss,
    "value": absolute_error,
    "mask": mask_error,
}
_LIMITS = {"dice": 1.0, "shrink": 1.0}


def goal(
    name: str, classes: Sequence[str], where: str, output: Output = "classes", tolerance: float | None = None
) -> Goal:
    """Return the goal that a plan names.

    Args:
        name: `any-error`; of classes `targeted:CLASS`, `hide:CLASS`, `invent:CLASS`; of findings `hide:FINDING`,
            `invent:FINDING`; of a value `shift:TOLERANCE`, `raise:TOLERANCE`, `lower:TOLERANCE` in its unit; of a mask
            `dice:LIMIT`, `hide:CLASS`, `shrink:SHARE`, `move:PIXELS`.
        classes: names of the classes, of the findings, or of a mask's classes, the background first.
        where: the table's name in messages.
        output: what the model returns.
        tolerance: the largest error of a value that does no harm.

    Raises:
        SpecError: no goal of this name fits the output and the classes.
    """
    found = any_error(output, tolerance) if name == _ANY else _named(name, tuple(classes), output)
    if found is None:
        allowed = ", ".join([_ANY, *_allowed(tuple(classes), output)])
        raise SpecError(f"{where}.goal = {name!r} is not known: allowed are {allowed}")
    return found


def any_error(output: Output, tolerance: float | None = None) -> Goal:
    """Return the untargeted goal: another class, any finding wrong, an error above `tolerance`, a Dice below 0.5."""
    if output == "labels":
        return AnyFinding()
    if output == "value":
        return Shifted(tolerance or 0.0, "shift", _ANY)
    return LowDice(1.0 - LARGEST_DICE_ERROR, _ANY) if output == "mask" else AnyError()


def highest_loss(output: Output) -> Goal:
    """Return the goal of an attack inside a training: the largest loss, never satisfied (Madry 2018, eq. 2.1)."""
    return HighestLoss() if output == "classes" else Endless(_LARGEST[output])


def _named(name: str, classes: tuple[str, ...], output: Output) -> Goal | None:
    kind, _, wanted = name.partition(":")
    by_number, by_name = _BY_NUMBER.get(output, {}), _BY_NAME.get(output, {})
    if kind in by_number:
        number = _number(kind, wanted)
        return None if number is None else by_number[kind](number, name)
    known = classes[1:] if output == "mask" else classes
    return by_name[kind](classes.index(wanted), name) if kind in by_name and wanted in known else None


def _number(kind: str, text: str) -> float | None:
    """Return the number of a goal where it is above 0 and below its limit; a Dice may be at it."""
    try:
        number = float(text)
    except ValueError:
        return None
    limit = _LIMITS.get(kind, math.inf)
    return number if 0.0 < number < limit or (kind == "dice" and number == limit) else None


def _allowed(classes: tuple[str, ...], output: Output) -> list[str]:
    if output == "value":
        return [f"{kind}:TOLERANCE" for kind in _OF_A_VALUE] + ["with a tolerance above 0 in the label's unit"]
    if output == "mask":
        named = [f"hide:{one}" for one in classes[1:]]
        return ["dice:LIMIT (above 0, up to 1)", *named, "shrink:SHARE (between 0 and 1)", "move:PIXELS (above 0)"]
    return [f"{kind}:{one}" for kind in _BY_NAME[output] for one in classes]
