"""A note marked up: the words that an attacker changed, old struck out and new beside it, amid the others."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from titer.report.drawings import Drawing
from titer.report.examples import Example

_WHOLE = 120
"""Words of a note that are shown whole; of a longer one only those near a change are."""
_AROUND = 6


def draw(example: Example, index: int) -> Drawing:
    """Return the note of one pair as running text with its changes marked."""
    written = example.meta["written"]
    before, after = ([str(word) for word in written[name][index]] for name in ("clean", "adversarial"))
    pairs = list(zip(before, after, strict=True))
    changed = [place for place, (old, new) in enumerate(pairs) if old != new]
    text = Markup(" ").join(_pieces(pairs, _shown(len(pairs), changed)))
    note = f"{len(changed)} of {len(pairs)} words changed"
    return Drawing(markup=Markup('<p class="marked">{}</p>').format(text), note=note)


def _shown(count: int, changed: Sequence[int]) -> list[bool]:
    if count <= _WHOLE or not changed:
        return [place < _WHOLE for place in range(count)]
    return [any(abs(place - at) <= _AROUND for at in changed) for place in range(count)]


def _pieces(pairs: Sequence[tuple[str, str]], shown: Sequence[bool]) -> list[Markup]:
    pieces: list[Markup] = []
    for place, (old, new) in enumerate(pairs):
        if shown[place]:
            pieces.append(_word(old, new))
        elif place == 0 or shown[place - 1]:
            pieces.append(Markup("…"))
    return pieces


def _word(old: str, new: str) -> Markup:
    if old == new:
        return escape(old)
    return Markup("<del>{}</del> <ins>{}</ins>").format(old, new)
