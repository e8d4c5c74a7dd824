"""Everything kept, by position in order of admission, with what finds it: two sides, flags, uids and pixel hashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.errors import UsageError
from curate.hashing import U64, HashIndex
from curate.neighbors.flat import asked
from curate.neighbors.lists import list_bytes
from curate.neighbors.side import KeptRows, Side
from curate_kernels.arrays import B1, F32, I64, U8
from curate_kernels.search import Asked, Kept

_ALIVE, _CAPTION = 1, 2  # bits of the flags
EXACT = 98_304  # rows up to which a search reads everything


@dataclass(frozen=True, slots=True)
class Found:
    """What a search of the kept set gave for b rows.

    top_image, top_text: (b, k) float32, similarity to the nearest kept, descending, -inf padding
    twin: (b,) int64, kept row that this one duplicates (equal pixels first, then most similar, then lowest), or -1
    exact: (b,) bool, the twin has equal pixels
    """

    top_image: F32
    top_text: F32
    twin: I64
    exact: B1


class Alike(NamedTuple):
    """Perceptual hashes (b,) of what is searched, 0 unknown.

    A kept image whose hash differs in at most `bits` bits is a duplicate at the distance `epsilon` already.
    """

    hashes: U64
    bits: int
    epsilon: float


class KeptIndex:
    """Everything kept, by position in order of admission. Memory: 2 (d + t) bytes a kept sample, plus its hash.

    Similarities are float32 products of float16 unit rows. Up to `exact` rows a search reads everything and misses
    none. Beyond, it reads the inverted lists that are nearest to each row (d/8 + t/8 bytes a sample more), trained when
    the rows reach `exact` and whenever they have doubled; of the 4 nearest, more than .99 are found. Equal pixels are
    always found. What is found depends on the rows added and on their order, not on how they were portioned.
    """

    def __init__(
        self,
        memory_gb: float = float("inf"),
        exact: int = EXACT,
        sides: tuple[KeptRows, KeptRows] | None = None,
    ) -> None:
        """sides: where images and captions lie, None: in this process."""
        self._memory_gb, self._exact = memory_gb, exact
        self.uids: list[str] = []
        self._at: dict[str, int] = {}
        self._pixels: dict[str, list[int]] = {}
        self._hashes = HashIndex()
        self._image: KeptRows
        self._text: KeptRows
        self._image, self._text = sides or (Side(), Side())
        self._flags: U8 = np.zeros(0, dtype=np.uint8)
        self._position: I64 = np.zeros(0, dtype=np.int64)  # of each row; rows that left give their place to later ones
        self._size = 0  # rows in memory
        self._trained = 0  # of which so many trained the lists

    def __len__(self) -> int:
        return len(self._at)

    def add(
        self,
        uids: Sequence[str],
        image: F32,
        text: F32,
        has_text: B1,
        pixels: Sequence[str],
        hashes: U64 | None = None,
    ) -> None:
        """Append kept rows: image (b, d), text (b, t) with t = 0 where no captions are known, hashes of the pixels.

        hashes: (b,) perceptual hashes, 0 unknown
        Raises UsageError when the kept set would take more than `memory_gb`.
        """
        start, stop = self._size, self._size + len(uids)
        self._reserve(stop, image.shape[1], text.shape[1])
        self._image.put(start, image, text, has_text)
        self._text.put(start, text, text[:, :0], has_text)
        self._flags[start:stop] = _ALIVE + _CAPTION * has_text.astype(np.uint8)
        self._position[start:stop] = np.arange(len(self.uids), len(self.uids) + len(uids))
        for position, (uid, pixel) in enumerate(zip(uids, pixels, strict=True), len(self.uids)):
            self.uids.append(uid)
            self._at[uid] = position
            self._pixels.setdefault(pixel, []).append(position)
        self._hashes.add(np.zeros(len(uids), dtype=np.uint64) if hashes is None else hashes)
        self._size = stop

    def remove(self, uids: Sequence[str]) -> None:
        """Take rows out of the kept set; they are never returned again. Their memory is free at the next training."""
        rows = self._row(np.array([self._at.pop(uid) for uid in uids], dtype=np.int64))
        self._flags[rows] = 0
        for side in (self._image, self._text):
            side.drop(rows)

    def search(
        self,
        image: F32,
        text: F32,
        has_text: B1,
        pixels: Sequence[str],
        k: int,
        epsilon: float,
        epsilon_text: float,
        alike: Alike | None = None,
    ) -> Found:
        """Return the k nearest kept of b rows, and what they duplicate.

        image: (b, d), text: (b, t) float32 unit rows; has_text: (b,) bool; pixels: b hashes
        epsilon, epsilon_text: near-duplicate distances (1 - cosine); epsilon_text ≥ 2: captions do not matter
        """
        self._settle()
        # float64, as the kernel compares inside a batch
        least, least_text = (1.0 - float(np.float32(e)) for e in (epsilon, epsilon_text))
        views, captions = self._kept(_ALIVE), self._kept(_ALIVE | _CAPTION)
        ask = asked(image, k, text, has_text, (least, least_text))
        ask_text = asked(text, k, text, np.zeros_like(has_text), (np.inf, np.inf))
        _together(
            lambda: self._image.search(views, self._size, ask),
            (lambda: self._text.search(captions, self._size, ask_text)) if has_text.any() else None,
        )
        twin = np.where(ask.twin_row >= 0, self._position[ask.twin_row], -1) if self._size else ask.twin_row
        if alike is not None and alike.bits >= 0:
            self._look_alike(twin, alike, ask, views)
        exact = self._same_pixels(twin, pixels, ask, views)
        return Found(ask.best, ask_text.best, twin, exact)

    def _kept(self, need: int) -> Kept:
        rows = self._text.rows if need & _CAPTION else self._image.rows
        return Kept(rows, self._text.rows, self._flags, need)

    def _row(self, position: I64) -> I64:
        """Return where rows lie in memory, by position."""
        return np.searchsorted(self._position[: self._size], position)

    def _look_alike(self, twin: I64, alike: Alike, ask: Asked, kept: Kept) -> None:
        """Where there is no twin, fill in the most similar kept row with a near hash, the lowest of equals."""
        query = np.flatnonzero((twin < 0) & (alike.hashes != 0))
        for asking, stored in self._hashes.within(alike.hashes[query], alike.bits):
            i, position, at = self._usable(query[asking], stored, ask, kept)
            sim = self._image.pairs(i, at, ask, kept)
            near = np.flatnonzero(sim >= 1.0 - float(np.float32(alike.epsilon)))
            near = near[np.lexsort((-position[near], sim[near]))]  # the last write wins
            twin[i[near]] = position[near]

    def _same_pixels(self, twin: I64, pixels: Sequence[str], ask: Asked, kept: Kept) -> B1:
        """Set the lowest kept row with equal pixels, where there is one; return (b,) where."""
        exact: B1 = np.zeros(twin.shape, dtype=np.bool_)
        pairs = [(i, j) for i, pixel in enumerate(pixels) if pixel for j in self._pixels.get(pixel, ())]
        if pairs:
            i, position = np.array(pairs, dtype=np.int64).T
            i, position, _ = self._usable(i, position, ask, kept)
            twin[i[::-1]] = position[::-1]  # the last write wins: the lowest position
            exact[i] = True
        return exact

    def _usable(self, i: I64, position: I64, ask: Asked, kept: Kept) -> tuple[I64, I64, I64]:
        """Return the pairs of query and kept row that are kept still and have captions that are the same too."""
        at = np.minimum(self._row(position), self._size - 1)
        same = (self._position[at] == position) & (kept.flags[at] & _ALIVE > 0)
        if ask.least[1] > -1.0:
            same &= ~ask.captioned[i] | (kept.flags[at] & _CAPTION > 0)
            check = np.flatnonzero(same & ask.captioned[i])
            same[check] = self._image.pairs(i[check], at[check], ask, kept, captions=True) >= ask.least[1]
        return i[same], position[same], at[same]

    def _settle(self) -> None:
        """Bring the lists to the state that the number of rows implies."""
        if self._size >= self._exact * _doubled(self._size, self._exact) > self._trained:
            alive = np.flatnonzero(self._flags[: self._size] & _ALIVE)
            if alive.size < self._size:
                self._compact(alive)
            self._train()
        image, text = self._kept(_ALIVE), self._kept(_ALIVE | _CAPTION)
        if self._trained:
            _together(lambda: self._image.join(self._size, image), lambda: self._text.join(self._size, text))

    def _train(self) -> None:
        self._trained = self._exact * _doubled(self._size, self._exact)
        flags = self._flags[: self._trained]
        image, text = (np.flatnonzero(flags & need == need) for need in (_ALIVE, _ALIVE | _CAPTION))
        _together(lambda: self._image.train(self._trained, image), lambda: self._text.train(self._trained, text))

    def _compact(self, alive: I64) -> None:
        """Close the gaps that removed rows left."""
        for side in (self._image, self._text):
            side.compact(alive)
        for array in (self._flags, self._position):
            array[: alive.size] = array[alive]
        self._size = alive.size

    def _reserve(self, size: int, image_dim: int, text_dim: int) -> None:
        old = self._flags.shape[0]
        width = (max(self._image.rows.shape[1], image_dim), max(self._text.rows.shape[1], text_dim))
        if size <= old and width == (self._image.rows.shape[1], self._text.rows.shape[1]):
            return
        room = max(size, old + max(old // 16, 1024) if size > old else old)
        need = 2 * room * (sum(width) + width[1] * self._image.captioned)
        if room >= self._exact:
            need += room * sum(list_bytes(d) for d in width)
        if need > self._memory_gb * 1e9:
            raise UsageError(
                f"{size} kept samples need {need / 1e9:.1f} GB, more than limits.memory_gb ="
                f" {self._memory_gb:g}; what is committed stays: go on with a higher limit and --change-recipe"
            )
        self._image.reserve(room, width[0])
        self._text.reserve(room, width[1])
        for array in (self._flags, self._position):
            array.resize(room, refcheck=False)


def _together(first: Callable[[], None], second: Callable[[], None] | None) -> None:
    """Do both, the second in a thread: the two sides share nothing that either changes, and kernels release the GIL.

    The thread ends with it, so that a fork finds none.
    """
    if second is None:
        first()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="curate-side") as pool:
        other = pool.submit(second)
        first()
        other.result()


def _doubled(size: int, exact: int) -> int:
    """Return the largest power of two times which `exact` fits in size, or 0."""
    return 1 << (size // exact).bit_length() - 1 if size >= exact else 0
