"""Caption quality without a model, for any script: length, words, repetition, what is no text, boilerplate."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate_kernels.arrays import F32, F64

U64 = NDArray[np.uint64]

_FOLD_AT = 65_536  # counts kept in a dictionary before they are sorted into the arrays

# Addresses, markup, file names and what cameras call their files. Runs are entered at their start only and never given
# back, so that no text takes more than linear time.
_JUNK = re.compile(
    r"(?:https?://|www\.)\S++|<[^<>]{1,300}+>|&\#?\w{1,10}+;|[^\s@]{1,64}+@\S++"
    r"|(?<![\w.-])[\w.-]*?\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|avif|svg|psd|raw|cr2|nef|mp4|html?|php|pdf)\b"
    r"|(?<![^\W_])(?:img|dscn?|dscf|dcim|pxl|pict|image|photo|screenshot|untitled)[_-]?\d{2,}[\w-]*+",
    re.IGNORECASE,
)
_HINT = re.compile(r"://|[<&@]|\.\w|\d\d")  # nothing of _JUNK is without one of these
_NUMBER = re.compile(r"\d+")
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")
_ASCII_GAP = re.compile(r"[^a-z0-9]+")
_NOT_LETTER = bytes(c for c in range(256) if not chr(c).isalpha() or c > 127)
_NOT_UPPER = bytes(c for c in range(256) if not chr(c).isupper() or c > 127)

# Scripts that put no space between words: Han and kana, at 2 characters a word; Thai, Lao, Burmese and Khmer, at 4.
_DENSE = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_LONG = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"


class _Score(NamedTuple):
    chars: int = 0
    words: int = 0
    repetition: float = 0.0
    nontext: float = 0.0
    caps: float = 0.0


def caption_scores(captions: Sequence[str | None]) -> dict[str, F32]:
    """Return columns of n captions, each (n,) float32; a missing or empty caption has 0 in all of them.

    caption_chars: characters, runs of white space as one; low: says little
    caption_words: words; Han and kana count 2 characters as one, Thai, Lao, Burmese and Khmer 4; low: says little
    caption_repetition: share of words, 0-1, that came before in the caption (runs of 2 or 4 characters in the scripts
        without spaces); high: keyword lists
    caption_nontext: share of characters, white space aside, that are no letter or belong to an address, to markup or to
        a file name, 0-1; high: no language
    caption_caps: share of upper case among the letters that have cases, 0-1; high: shouting
    """
    scores = [_score(caption or "") for caption in captions]
    columns = zip(*scores, strict=True) if scores else [()] * len(_Score._fields)
    return {f"caption_{name}": np.array(c, np.float32) for name, c in zip(_Score._fields, columns, strict=True)}


def _score(caption: str) -> _Score:
    text = " ".join(caption.split())
    if not text:
        return _Score()
    plain = _JUNK.sub(" ", text) if _HINT.search(text) else text
    solid = len(text) - text.count(" ")
    if plain.isascii():
        raw = plain.encode()
        letters, upper = len(raw.translate(None, _NOT_LETTER)), len(raw.translate(None, _NOT_UPPER))
        cased = letters
        units: list[str] = _ASCII_WORD.findall(plain.lower())
        words = len(units)
    else:
        letters = sum(map(str.isalpha, plain)) + len(_mark().findall(plain))
        upper = sum(map(str.isupper, plain))
        cased = upper + sum(map(str.islower, plain))
        words, units = _units(plain.casefold())
    repetition = 1.0 - len(set(units)) / len(units) if units else 0.0
    return _Score(len(text), words, repetition, 1.0 - letters / solid, upper / cased if cased else 0.0)


def _units(text: str) -> tuple[int, list[str]]:
    """Return how many words a text has, and the units whose repetition counts."""
    words, units = 0, []
    for dense, long, spaced in _words().findall(text):
        run, size = (dense, 2) if dense else (long, 4) if long else (spaced, 0)
        words += -(-len(run) // size) if size else 1
        units += [run[i : i + size] for i in range(max(1, len(run) - size + 1))] if size else [run]
    return words, units


@functools.cache
def _marks() -> str:
    """Return the combining marks as a character class; Python's `\\w` leaves them out, and so cuts Hindi words."""
    marks = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M"]
    starts = [c for i, c in enumerate(marks) if i == 0 or marks[i - 1] != c - 1]
    ends = [c for i, c in enumerate(marks) if i + 1 == len(marks) or marks[i + 1] != c + 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


@functools.cache
def _mark() -> re.Pattern[str]:
    return re.compile(f"[{_marks()}]")


@functools.cache
def _words() -> re.Pattern[str]:
    return re.compile(rf"([{_DENSE}]+)|([{_LONG}]+)|((?:[^\W_{_DENSE}{_LONG}]|[{_marks()}]|(?<=\w)['’](?=\w))+)")


@functools.cache
def _gap() -> re.Pattern[str]:
    return re.compile(rf"(?:(?![{_marks()}])[\W_])+")


def normalised(caption: str) -> str:
    """Return a caption in lower case, its compatibility forms unified, words apart by one space, nothing else."""
    if caption.isascii():
        return _ASCII_GAP.sub(" ", caption.lower()).strip()
    return _gap().sub(" ", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", caption).casefold())).strip()


class CaptionCounts:
    """How many rows carry each caption: sums that merge, by a 64-bit hash of the normalised caption.

    Counted twice: as it is, and with every number replaced by one sign, so that "photo 12" and "photo 13" meet.
    16 bytes a distinct caption, 32 where it holds a number.
    """

    def __init__(self) -> None:
        self._keys: U64 = np.zeros(0, dtype=np.uint64)
        self._counts: F64 = np.zeros(0)
        self._recent: dict[int, float] = {}

    def add(self, captions: Sequence[str | None], sign: float = 1.0) -> None:
        """Count the captions of some rows; with sign -1 take them out again. Missing and empty ones count nowhere."""
        for caption in captions:
            for key in {key for key in _keys_of(caption) if key is not None}:
                self._recent[key] = self._recent.get(key, 0.0) + sign
        if len(self._recent) > max(_FOLD_AT, self._keys.shape[0] // 4):
            self._settle()

    def same(self, captions: Sequence[str | None]) -> F64:
        """Return how many counted rows have the same normalised caption: (n,) float64; 0 for a missing one."""
        return self._look_up([_keys_of(caption)[1] for caption in captions])

    def shared(self, captions: Sequence[str | None]) -> F64:
        """Return `caption_shared`: as `same`, whatever numbers the captions hold; never less. High: boilerplate."""
        return self._look_up([_keys_of(caption)[0] for caption in captions])

    def merge(self, other: CaptionCounts) -> None:
        """Add another's counts."""
        other._settle()
        self._fold(other._keys, other._counts)

    def arrays(self) -> dict[str, NDArray[np.uint64] | F64]:
        """Return the counts as named arrays, to be saved: key (n,) uint64 ascending, count (n,) float64, none 0."""
        self._settle()
        return {"key": self._keys.copy(), "count": self._counts.copy()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.uint64] | F64]) -> CaptionCounts:
        """Return the counts that `arrays()` gave."""
        counts = cls()
        counts._keys = arrays["key"].astype(np.uint64)
        counts._counts = arrays["count"].astype(np.float64)
        return counts

    def _settle(self) -> None:
        self._fold(np.fromiter(self._recent, np.uint64), np.fromiter(self._recent.values(), np.float64))
        self._recent = {}

    def _fold(self, keys: U64, counts: F64) -> None:
        merged, place = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        total = np.bincount(place, np.concatenate([self._counts, counts]), minlength=merged.shape[0])
        self._keys, self._counts = merged[total != 0], total[total != 0]

    def _look_up(self, keys: list[int | None]) -> F64:
        wanted = np.array([key or 0 for key in keys], dtype=np.uint64)
        found = np.array([0.0 if key is None else self._recent.get(key, 0.0) for key in keys])
        if not self._keys.size:
            return found
        place = np.minimum(np.searchsorted(self._keys, wanted), self._keys.size - 1)
        known = (self._keys[place] == wanted) & np.array([key is not None for key in keys], dtype=np.bool_)
        return found + np.where(known, self._counts[place], 0.0)


def _keys_of(caption: str | None) -> tuple[int | None, int | None]:
    """Return the hashes of a normalised caption without and with its numbers; equal where it holds none."""
    text = normalised(caption or "")
    if not text:
        return None, None
    masked = _NUMBER.sub("\0", text)  # no sign of a normalised text
    key = _hash(masked)
    return key, key if masked is text or masked == text else _hash(text)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
