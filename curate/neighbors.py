"""The kept set, searched exactly: nearest kept samples by image and by caption, and duplicates among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.errors import UsageError
from curate_kernels.arrays import B1, F16, F32, I64
from curate_kernels.topk import push_topk

_TILE = 8192


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


class KeptIndex:
    """Everything kept, by position in order of admission. Memory: 2 (d + t) bytes a kept sample, plus its hash.

    Similarities are float32 products of float16 unit rows; no row is ever missed. A search reads everything kept.
    """

    def __init__(self, memory_gb: float = float("inf")) -> None:
        self._memory_gb = memory_gb
        self.uids: list[str] = []
        self._at: dict[str, int] = {}
        self._pixels: dict[str, list[int]] = {}
        self._image: F16 = np.zeros((0, 0), dtype=np.float16)
        self._text: F16 = np.zeros((0, 0), dtype=np.float16)
        self._has_text: B1 = np.zeros(0, dtype=np.bool_)
        self._alive: B1 = np.zeros(0, dtype=np.bool_)

    def __len__(self) -> int:
        return int(self._alive.sum())

    def add(self, uids: Sequence[str], image: F32, text: F32, has_text: B1, pixels: Sequence[str]) -> None:
        """Append kept rows: image (b, d), text (b, t) with t = 0 where no captions are known, pixel hashes.

        Raises UsageError when the kept set would take more than `memory_gb`.
        """
        start = len(self.uids)
        stop = start + len(uids)
        self._reserve(stop, image.shape[1], text.shape[1])
        self._image[start:stop] = image
        if text.shape[1]:
            self._text[start:stop] = text
        self._has_text[start:stop] = has_text
        self._alive[start:stop] = True
        for position, (uid, pixel) in enumerate(zip(uids, pixels, strict=True), start):
            self.uids.append(uid)
            self._at[uid] = position
            self._pixels.setdefault(pixel, []).append(position)

    def remove(self, uids: Sequence[str]) -> None:
        """Take rows out of the kept set; they are never returned again."""
        for uid in uids:
            self._alive[self._at.pop(uid)] = False

    def search(
        self, image: F32, text: F32, has_text: B1, pixels: Sequence[str], k: int, epsilon: float, epsilon_text: float
    ) -> Found:
        """Return the k nearest kept of b rows, and what they duplicate.

        image: (b, d), text: (b, t) float32 unit rows; has_text: (b,) bool; pixels: b hashes
        epsilon, epsilon_text: near-duplicate distances (1 - cosine); epsilon_text ≥ 2: captions do not matter
        """
        b, n = image.shape[0], len(self.uids)
        least = 1.0 - np.float64(np.float32(epsilon))  # float64, as the kernel compares inside a batch
        least_text = 1.0 - np.float64(np.float32(epsilon_text))
        top_image = np.full((b, k), -np.inf, dtype=np.float32)
        top_text = np.full((b, k), -np.inf, dtype=np.float32)
        row = np.full((b, k), -1, dtype=np.int64)
        near: list[tuple[I64, I64, F32]] = [self._equal_pixels(pixels)]
        for base in range(0, n, _TILE):
            part = slice(base, min(base + _TILE, n))
            sim = image @ self._image[part].T.astype(np.float32)
            push_topk(sim, self._alive[part], base, top_image, row)
            i, j = np.nonzero((sim >= least) & self._alive[part])
            near.append((i, j + base, sim[i, j]))
        if has_text.any() and self._text.shape[1]:
            row.fill(-1)
            for base in range(0, n, _TILE):
                part = slice(base, min(base + _TILE, n))
                sim = text @ self._text[part].T.astype(np.float32)
                push_topk(sim, self._alive[part] & self._has_text[part], base, top_text, row)
        twin, exact = self._twins(near, text, has_text, least_text)
        return Found(top_image, top_text, twin, exact)

    def _equal_pixels(self, pixels: Sequence[str]) -> tuple[I64, I64, F32]:
        pairs = [
            (i, j) for i, pixel in enumerate(pixels) if pixel for j in self._pixels.get(pixel, ()) if self._alive[j]
        ]
        both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1], np.full(len(pairs), 2.0, dtype=np.float32)

    def _twins(self, near: list[tuple[I64, I64, F32]], text: F32, has_text: B1, least: float) -> tuple[I64, B1]:
        i, j = (np.concatenate([part[side] for part in near]) for side in (0, 1))
        sim = np.concatenate([part[2] for part in near])
        if least > -1.0:
            asks = has_text[i]
            same = ~asks | self._has_text[j]
            check = np.flatnonzero(asks & same)
            if check.size:
                same[check] = np.einsum("ij,ij->i", text[i[check]], self._text[j[check]].astype(np.float32)) >= least
            i, j, sim = i[same], j[same], sim[same]
        twin = np.full(has_text.shape[0], -1, dtype=np.int64)
        exact = np.zeros(has_text.shape[0], dtype=np.bool_)
        order = np.lexsort((-j, sim))  # the last write wins: most similar, then lowest position
        twin[i[order]] = j[order]
        exact[i[order]] = sim[order] == 2.0
        return twin, exact

    def _reserve(self, size: int, image_dim: int, text_dim: int) -> None:
        old = self._alive.shape[0]
        wide = (max(self._image.shape[1], image_dim), max(self._text.shape[1], text_dim))
        if size <= old and wide == (self._image.shape[1], self._text.shape[1]):
            return
        room = max(size, old + old // 2 if size > old else old, 1024)
        if 2 * room * sum(wide) > self._memory_gb * 1e9:
            raise UsageError(
                f"{size} kept samples need {2 * room * sum(wide) / 1e9:.1f} GB, more than limits.memory_gb ="
                f" {self._memory_gb:g}; what is committed stays: go on with a higher limit and --change-recipe"
            )
        self._image = _resized(self._image, room, wide[0])
        self._text = _resized(self._text, room, wide[1])
        self._has_text = np.concatenate([self._has_text, np.zeros(room - old, dtype=np.bool_)])
        self._alive = np.concatenate([self._alive, np.zeros(room - old, dtype=np.bool_)])


def _resized(matrix: F16, rows: int, columns: int) -> F16:
    out = np.zeros((rows, columns), dtype=np.float16)
    out[: matrix.shape[0], : matrix.shape[1]] = matrix
    return out
