"""What a word of a note may become: neighbours in meaning, typing errors, swapped letters; and words that may not.

Nothing is downloaded: synonyms are words that stand in the same places of the same notes (Levy, Goldberg, Dagan 2015,
10.1162/tacl_a_00134: positive pointwise mutual information, then a truncated SVD). Words in the same places are often
alike and sometimes opposite, so that what turns a finding round (negations, sides, amounts, degrees) is protected.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from titer.modalities._word_lists import ALIKE, DRUGS, GROUPS, MEDICAL, PREFIXES, STOP_WORDS, TURNS

Table = dict[str, list[str]]

_WINDOW = 4
_DIMENSIONS = 64
_FREQUENT = 8
_CONTEXTS = 1500
_LIKE = 0.8
_SYNONYMS = 5
_SHORTEST = 4
_KEYS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
_ENDINGS = ("ing", "ed", "ly", "tion", "sion", "ment", "ity", "al", "ous", "ive", "ic", "es", "s")


def protected(words: Collection[str], terms: Collection[str]) -> set[str]:
    """Return the words that no attacker may change: numbers, medical terms, `terms`, and what turns a finding round."""
    single = {part for term in terms for part in term.lower().replace("/", " ").replace("-", " ").split()}
    kept = (single | TURNS | DRUGS) - STOP_WORDS
    return {
        word for word in words if word in kept or any(c.isdigit() for c in word) or MEDICAL.match(word) or len(word) < 2
    }


def typos(word: str) -> list[str]:
    """Return three slips of the keyboard: a neighbouring key, a doubled letter, a missing one; inside a word."""
    if len(word) < _SHORTEST or not word.isalpha():
        return []
    at = 1 + zlib.crc32(word.encode()) % (len(word) - 2)
    near = _near(word[at])
    slip = near[zlib.crc32(word.encode()) // 7 % len(near)] if near else word[at]
    return [word[:at] + slip + word[at + 1 :], word[:at] + word[at] + word[at:], word[:at] + word[at + 1 :]]


def swaps(word: str) -> list[str]:
    """Return the word with two neighbouring letters swapped, at two places inside it (Pruthi et al. 2019)."""
    if len(word) < _SHORTEST or not word.isalpha():
        return []
    places = [i for i in range(1, len(word) - 2) if word[i] != word[i + 1]]
    if not places:
        return []
    first = zlib.crc32(word.encode()) % len(places)
    chosen = {places[first], places[(first + len(places) // 2) % len(places)]}
    return [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in sorted(chosen)]


def synonyms(notes: Sequence[Sequence[str]], kept: Collection[str]) -> Table:
    """Return up to five synonyms of each word that is not in `kept`: those of our own list, and its neighbours."""
    own: Table = {}
    for row in ALIKE:
        for word in set(row) - set(kept):
            own.setdefault(word, []).extend(other for other in row if other != word and other not in kept)
    near = _neighbours(notes, kept)
    return {
        word: list(dict.fromkeys([*own.get(word, ()), *near.get(word, ())]))[:_SYNONYMS] for word in {**own, **near}
    }


def _neighbours(notes: Sequence[Sequence[str]], kept: Collection[str]) -> Table:
    """Return the words that stand in the same places as each frequent one that is neither a stop word nor in `kept`."""
    vocabulary, counts = _counted(notes)
    free = [i for i, word in enumerate(vocabulary) if _may_vary(word, kept)]
    if len(vocabulary) < _DIMENSIONS or len(free) <= 2 * _SYNONYMS:
        return {}
    vectors = _vectors(counts)
    likeness = vectors[free] @ vectors[free].T
    np.fill_diagonal(likeness, -1.0)
    nearest = -np.partition(-likeness, 2 * _SYNONYMS, axis=1)[:, 2 * _SYNONYMS]
    table: Table = {}
    for row, i in enumerate(free):
        order = np.argsort(-likeness[row], kind="stable")[: 4 * _SYNONYMS]
        # Each must be among the other's own nearest: a rare word is near to many, and few are near to it.
        near = [vocabulary[free[j]] for j in order if likeness[row, j] >= max(_LIKE, nearest[j])]
        alike = [word for word in near if _same_form(word, vocabulary[i])][:_SYNONYMS]
        if alike:
            table[vocabulary[i]] = alike
    return table


def _may_vary(word: str, kept: Collection[str]) -> bool:
    return word not in kept and word not in STOP_WORDS and word.isalpha() and len(word) >= _SHORTEST


def _same_form(one: str, other: str) -> bool:
    """Return whether two words end alike, as the same part of speech often does, and are no known opposites."""
    opposite = any({one, other} <= group for group in GROUPS) or _bare(one) == _bare(other)
    return _ending(one) == _ending(other) and not opposite


def _bare(word: str) -> str:
    """Return the word without a prefix that may turn it round: adduction and abduction are left alike."""
    return next((word[len(one) :] for one in PREFIXES if word.startswith(one) and len(word) > len(one) + 3), word)


def _ending(word: str) -> str:
    return next((ending for ending in _ENDINGS if word.endswith(ending)), "")


def _counted(notes: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return the frequent words, and float64[V, C] of how often each stands near the most frequent ones."""
    often: dict[str, int] = {}
    for note in notes:
        for word in note:
            often[word] = often.get(word, 0) + 1
    ranked = sorted((word for word, count in often.items() if count >= _FREQUENT), key=lambda w: (-often[w], w))
    index = {word: i for i, word in enumerate(ranked)}
    contexts = min(len(ranked), _CONTEXTS)
    counts = np.zeros((len(ranked), contexts))
    for note in notes:
        ids = np.array([index.get(word, -1) for word in note])
        for step in range(1, _WINDOW + 1):
            for here, there in ((ids[:-step], ids[step:]), (ids[step:], ids[:-step])):
                both = (here >= 0) & (there >= 0) & (there < contexts)
                np.add.at(counts, (here[both], there[both]), 1.0 / step)
    return ranked, counts


def _vectors(counts: np.ndarray) -> np.ndarray:
    """Return float64[V, 64] of length 1: the left singular vectors of the positive mutual information, weighed."""
    from sklearn.utils.extmath import randomized_svd

    rows, columns, total = counts.sum(1, keepdims=True), counts.sum(0, keepdims=True) ** 0.75, counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        mutual = np.log(counts * columns.sum() / (rows * columns))
    mutual = np.where(np.isfinite(mutual) & (counts > 0) & (total > 0), mutual, 0.0).clip(min=0.0)
    left, strength, _ = randomized_svd(mutual, _DIMENSIONS, n_iter=2, random_state=0)
    vectors = left * np.sqrt(strength)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    weighed: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return weighed


def _near(letter: str) -> str:
    """Return the letters of the keys around one."""
    places = {c: (row, column + shift) for row, (keys, shift) in enumerate(_KEYS) for column, c in enumerate(keys)}
    if letter not in places:
        return ""
    row, column = places[letter]
    return "".join(c for c, (r, k) in places.items() if c != letter and abs(r - row) <= 1 and abs(k - column) <= 1.0)


def tables(notes: Sequence[Sequence[str]], kept: Collection[str]) -> Mapping[str, Table]:
    """Return the substitutes of every word by kind: `synonyms`, `typos`, `swaps`.

    A typing error that is a word of the notes itself is left out: it would be another word, and not an error.
    """
    words = {word for note in notes for word in note}
    free = sorted(words - set(kept))
    slips = {kind: {word: [one for one in make(word) if one not in words] for word in free} for kind, make in _SLIPS}
    return {"synonyms": synonyms(notes, kept), **slips}


_SLIPS = (("typos", typos), ("swaps", swaps))
