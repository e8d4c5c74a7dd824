"""Balancing over metadata: Xu et al., Demystifying CLIP Data, ICLR 2024, arXiv:2309.16671, algorithm 1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.sampling import draw
from curate_selectors.types import Candidates, Selection

_WORD = re.compile(r"\w+")
_SURE = 50.0  # 1 - exp(-50) is 1 in float32
_FREQUENT = 2  # captions that a word must be in to be an entry


@dataclass(frozen=True, slots=True)
class MetaClip:
    """At most about `cap` rows for each metadata entry; a row is kept if any entry that it matches lets it pass.

    An entry lets a row pass with the chance min(1, cap / rows that match it), so a row is kept with the chance
    1 - Π (1 - chance) over its entries. An entry matches where its words stand in the caption in a row, whatever their
    case: "cat" is not in "catalogue". Rows that match nothing come after all others, in order.

    entries: words or phrases; none: every word that two or more captions have
    cap: rows per entry; 0: as many as make `count` the expected number (so no smaller selection is a prefix)
    """

    entries: tuple[str, ...] = ()
    cap: float = 0.0

    def __post_init__(self) -> None:
        if self.cap < 0:
            raise SelectorError(f"cap is {self.cap}; it must be 0 or more")
        if isinstance(self.entries, str):
            raise SelectorError(f"entries is one text, {self.entries!r}; it must be a list of texts")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` draws in these chances; gain is the chance that the cap gives. Memory O(matches)."""
        check_count(data, count)
        if data.captions is None or len(data.captions) != data.n:
            has = "none" if data.captions is None else len(data.captions)
            raise SelectorError(f"method 'metaclip' needs {data.n} captions; there are {has}")
        row, entry = matches(data.captions, self.entries)
        matched = np.bincount(entry)[entry].astype(np.float64)  # rows of each match's entry
        cap = self.cap or _cap(row, matched, data.n, count)
        weight = _weights(row, matched, data.n, cap)
        with np.errstate(divide="ignore"):
            index, chance = draw(np.log(weight), count, seed)
        gain = (-np.expm1(-weight[index])).astype(np.float32)
        return Selection(index, gain, np.ones(count, dtype=np.float32), chance)


def matches(captions: Sequence[str | None], entries: Sequence[str] = ()) -> tuple[I64, I64]:
    """Return each match of a caption with an entry once: numbers of the rows and of the entries, (m,) int64 both."""
    words = [_WORD.findall((caption or "").lower()) for caption in captions]
    if entries:
        known = dict.fromkeys(" ".join(_WORD.findall(entry.lower())) for entry in entries)
        known.pop("", None)
    else:
        often = Counter(word for caption in words for word in dict.fromkeys(caption))
        known = dict.fromkeys(word for word, n in often.items() if n >= _FREQUENT)
    number = {entry: i for i, entry in enumerate(known)}
    lengths = sorted({entry.count(" ") + 1 for entry in known})
    found = []
    for i, caption in enumerate(words):
        grams = (" ".join(caption[j : j + k]) for k in lengths for j in range(len(caption) - k + 1))
        found += [(i, number[gram]) for gram in dict.fromkeys(grams) if gram in number]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _weights(row: I64, matched: F64, n: int, cap: float) -> F64:
    """Return -log of each row's chance to be kept by none of its entries, (n,), at most 50."""
    with np.errstate(divide="ignore"):
        each = -np.log1p(-np.minimum(cap / matched, 1.0))
    return np.minimum(np.bincount(row, each, minlength=n), _SURE)


def _cap(row: I64, matched: F64, n: int, count: int) -> float:
    """Return the cap that keeps `count` rows in expectation; the largest number of matches if all rows are fewer."""
    low, high = 0.0, float(matched.max(initial=1.0))
    for _ in range(60):
        middle = (low + high) / 2
        fewer = -np.expm1(-_weights(row, matched, n, middle)).sum() < count
        low, high = (middle, high) if fewer else (low, middle)
    return high
