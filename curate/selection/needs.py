"""What a method needs, from what was given: `needs` of its entry, word by word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from curate.errors import UsageError
from curate.scores.table import SCORES
from curate_selectors.registry import entry, make

_SCORE = "score:"
_ELSE = " else "
_GIVE = {
    "embeddings": "give x",
    "images": "it reads images where they lie: `curate select POOL`, curate.select_from_pool",
    "text": "give text= (embeddings of the captions); a pool has them where it was grown with captions",
    "captions": "give captions=; a pool has them where it was grown with captions",
    "labels": "give labels=; `curate grow --label COLUMN` reads them",
    "groups": "give groups=; `curate grow --group COLUMN` reads them",
    "target": "give target=, samples like those that are wanted (--target POOL or --target FILE.npy)",
}


def needs_of(method: str, params: dict[str, Any]) -> tuple[str, ...]:
    """Return what a method with these parameters needs; `{PARAMETER}` in its entry is that parameter's value.

    What follows `else` stands in for a default only, so with another value of the parameter it is left out.
    """
    row = entry(method)
    if not any("{" in need for need in row.needs):
        return row.needs
    made = make(method, **params)
    values = {f.name: getattr(made, f.name) for f in fields(made)}
    usual = {f.name: f.default for f in fields(made)}
    needs = []
    for need in row.needs:
        first, _, _ = need.partition(_ELSE)
        stands = first.format_map(usual) == first.format_map(values)
        needs.append((need if stands else first).format_map(values))
    return tuple(need for need in needs if need != _SCORE)  # a parameter may name none


def fill(
    method: str,
    needs: Sequence[str],
    at_hand: Callable[[str], bool],
    compute: Callable[[str], None],
    welcome: bool = False,
) -> tuple[set[str], set[str]]:
    """Return the words of `needs` that the method can read, one of each need: those at hand first, else computed.

    The second set is of those that it can do without: of `a?` those at hand; welcome: and scores that can be computed.

    Of `a else b` b is looked at only where a can be neither read nor computed.

    at_hand: tells whether a word is there, and reads it then
    compute: makes the score of a `score:NAME` word, or raises UsageError

    Raises UsageError, naming the need and what to give, where nothing meets it.
    """
    wanted = [need[:-1] for need in needs if need.endswith("?")]
    able = {word for word in wanted if at_hand(word) or (welcome and _computed(word, compute))}
    return {_met(method, need, at_hand, compute) for need in needs if not need.endswith("?")}, able


def _computed(word: str, compute: Callable[[str], None]) -> bool:
    if not word.startswith(_SCORE):
        return False
    try:
        compute(word)
    except UsageError:  # there is nothing to compute it from
        return False
    return True


def _met(method: str, need: str, at_hand: Callable[[str], bool], compute: Callable[[str], None]) -> str:
    reasons = []
    for words in (part.split(" or ") for part in need.split(_ELSE)):
        for word in words:
            if at_hand(word):
                return word
        for word in words:
            try:
                if word.startswith(_SCORE):
                    compute(word)
                    return word
            except UsageError as error:
                reasons.append(f"{word} cannot be computed: {error}")
            else:
                reasons.append(_GIVE.get(word, f"give scores={{{word!r}: …}}"))
    raise UsageError(f"method {method!r} needs {need}: {'; or '.join(reasons)}")


def score_name(word: str) -> str:
    """Return NAME of `score:NAME`, or a word that is a stored column's name as it is."""
    return word.removeprefix(_SCORE)


def score_of(name: str) -> str:
    """Return the score that computes a column (or has this name itself). Raises UsageError where none does."""
    for score, row in SCORES.items():
        if any(column == name for column, _, _ in row.columns):
            return score
    if name in SCORES:
        return name
    raise UsageError(f"no score computes {name!r}; `curate methods --scores` lists them")


def named(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that a score gave for the need `name`: all of them, the first by the score's name too.

    Raises UsageError where the score did not give the column asked for.
    """
    if name in found:
        return found
    if name in SCORES and found:
        return {**found, name: next(iter(found.values()))}
    raise UsageError(f"score {score_of(name)!r} gave no {name} on this data; it gave: {', '.join(found) or 'nothing'}")
