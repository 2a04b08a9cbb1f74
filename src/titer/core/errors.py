"""The errors Titer raises on purpose.

```
TiterError
├── SpecError       the user's plan, data or weights are wrong: exit status 2, one line, no traceback
├── Incompatible    this attack cannot run on this model or threat: a skipped row with its reason
│   └── TargetFailed    a remote model hangs, answers wrongly or is past its budget: the cell fails, the rest goes on
├── ContractError   a plugin broke its contract, or a run folder is damaged: a bug, stop
└── Interrupted     the user stopped the work: exit status 130, the same command resumes
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FAILED = "failed: "
"""Begins the reason of a cell that failed and may succeed later, where a skipped one never will."""


class TiterError(Exception):
    """Base of every error that Titer raises on purpose."""


class SpecError(TiterError):
    """What the user gave is wrong: the message names the setting, its value, and what is allowed."""


class Incompatible(TiterError):  # noqa: N818 - the design's name: a state of a cell, not a failure
    """A plugin cannot work on the given model, threat or data; the cell is skipped with this reason."""


class TargetFailed(Incompatible):
    """A remote model gave no usable answer; the cell fails with this reason, and another call may succeed."""

    @property
    def reason(self) -> str:
        """What went wrong, without the word that marks it as a failure."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{FAILED}{self.reason}"


class ContractError(TiterError):
    """A plugin broke the contract that every plugin of its shelf keeps: a bug, not a finding."""


class Interrupted(TiterError):  # noqa: N818 - says what happened
    """The user stopped the work; finished cells are kept."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest of `allowed`, or nothing where none is close."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(setting: str, value: str, allowed: Iterable[str]) -> SpecError:
    """Build the error for a name that is not one of `allowed`."""
    names = sorted(allowed)
    return SpecError(f"{setting} = {value!r} is not known: allowed are {', '.join(names)}{nearest(value, names)}")
