"""Significance groups: names that share a letter were not told apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from string import ascii_lowercase


def compact_letters(names: Sequence[str], different: Collection[frozenset[str]]) -> dict[str, str]:
    """Return the compact letter display of pairwise tests: two names share a letter exactly if they do not differ.

    Insert and absorb (Piepho 2004, J Comput Graph Stat 13:456, section 2): every difference splits each group that
    holds both names, and groups inside others are dropped.

    Args:
        names: best first; the first one has the letter a.
        different: pairs of names that a test told apart.
    """
    groups: list[frozenset[str]] = [frozenset(names)]
    for pair in different:
        split = [part for group in groups for part in _split(group, pair)]
        unique = list(dict.fromkeys(split))
        groups = [group for group in unique if not any(group < other for other in unique)]
    rank = {name: place for place, name in enumerate(names)}
    groups.sort(key=lambda group: sorted(rank[name] for name in group))
    return {name: "".join(_letter(place) for place, group in enumerate(groups) if name in group) for name in names}


def _split(group: frozenset[str], pair: frozenset[str]) -> list[frozenset[str]]:
    return [group - {name} for name in sorted(pair)] if pair <= group else [group]


def _letter(place: int) -> str:
    """Return a to z, then aa' and so on: a letter with a mark for each further round."""
    rounds, place = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[place] + "'" * rounds
