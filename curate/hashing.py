"""Perceptual hashes of pictures, and an exact search for near ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate_kernels.arrays import B1, F64, I64, U8
from curate_kernels.phash import (
    cosine_basis,
    hash_matches,
    hash_pairs,
    lanczos_taps,
    nearest_hash,
    phash_bits,
    shrink_luma,
)

U64 = NDArray[np.uint64]

_SIDE = 32
_LOW = 8
_CERTAIN = 1e-6  # coefficients reach 1e6, the rounding errors of two orders of addition 1e-8


def phash(pixels: U8) -> int:
    """Return the 64-bit perceptual hash of a picture; near pictures differ in few bits.

    The bits are those of `imagehash.phash(image)` at its defaults, the first the most significant, so that
    `f"{phash(pixels):016x}"` is its text. Where a coefficient ties with the median (a mirrored or plain picture), its
    bit hangs on the last digit of a cosine transform: there scipy's is asked, as imagehash does.

    pixels: (H, W, 3) uint8 RGB
    """
    height, width, _ = pixels.shape
    small = np.empty((_SIDE, _SIDE), dtype=np.uint8)
    shrink_luma(np.ascontiguousarray(pixels), *_taps(width), *_taps(height), small)
    out = np.empty(1, dtype=np.uint64)
    if phash_bits(small, _basis(), out) < _CERTAIN:
        return _tied_bits(small)
    return int(out[0])


def _tied_bits(small: U8) -> int:
    from scipy.fftpack import dct

    low = dct(dct(small, axis=0), axis=1)[:_LOW, :_LOW]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


@functools.lru_cache(maxsize=256)
def _taps(size: int) -> tuple[I64, I64, F64]:
    return lanczos_taps(size, _SIDE)


@functools.cache
def _basis() -> F64:
    return cosine_basis(_SIDE, _LOW)


def look_alike_epsilon(asked: float, epsilon: float) -> float:
    """Return the near-duplicate distance of look-alikes: as the recipe asks, or three times that of others."""
    return asked or min(3 * epsilon, 1.0)


def hash_words(texts: Sequence[str | None]) -> U64:
    """Return hashes from their hex digits, (n,) uint64; 0 where there is none."""
    return np.array([int(text, 16) if text else 0 for text in texts], dtype=np.uint64)


def alike(hashes: U64, bits: int) -> B1:
    """Return which pairs of (b,) uint64 hashes differ in at most `bits` bits, (b, b) bool; 0 is unknown."""
    known = np.flatnonzero(hashes)
    out: B1 = np.zeros((hashes.size, hashes.size), dtype=np.bool_)
    if bits >= 0:
        i, j = known[near_pairs(hashes[known], bits)].T
        out[i, j] = out[j, i] = True
    return out


def near_pairs(hashes: U64, radius: int) -> I64:
    """Return all pairs (r, 2) int64 of positions i < j whose hashes differ in at most `radius` bits, in order.

    hashes: (n,) uint64; every pair is compared: 100,000 hashes take seconds
    """
    room = max(64, hashes.shape[0])
    pairs = np.empty((room, 2), dtype=np.int64)
    found = hash_pairs(hashes, radius, pairs)
    if found > room:
        pairs = np.empty((found, 2), dtype=np.int64)
        hash_pairs(hashes, radius, pairs)
    return pairs[:found]


class HashIndex:
    """64-bit hashes by position, in order of arrival, searched exactly. Memory: 8 bytes a hash.

    A search reads every hash, about .25 ns each: at 100,000 that is 7 times as fast as faiss's flat binary index and 3
    times as fast as its multi-index hashing.
    """

    def __init__(self) -> None:
        self._hashes: U64 = np.zeros(1024, dtype=np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, hashes: U64) -> None:
        """Append (b,) uint64 hashes; their positions follow those already here."""
        stop = self._size + hashes.shape[0]
        if stop > self._hashes.shape[0]:
            grown = np.zeros(max(stop, self._size + self._size // 2), dtype=np.uint64)
            grown[: self._size] = self._hashes[: self._size]
            self._hashes = grown
        self._hashes[self._size : stop] = hashes
        self._size = stop

    def search(self, hashes: U64, radius: int) -> tuple[I64, I64]:
        """Return the position of the nearest stored hash, the lowest of equally near ones, and its distance in bits.

        hashes: (b,) uint64; both (b,) int64; position -1 where none lies within `radius` bits
        """
        position, distance = (np.empty(hashes.shape[0], dtype=np.int64) for _ in range(2))
        nearest_hash(np.ascontiguousarray(hashes), self._hashes[: self._size], position, distance)
        return np.where(distance <= radius, position, -1), distance

    def within(self, hashes: U64, radius: int) -> tuple[I64, I64]:
        """Return the pairs (query, position) that differ in at most `radius` bits, in order; both (r,) int64."""
        queries, stored = np.ascontiguousarray(hashes), self._hashes[: self._size]
        pairs = np.empty((64, 2), dtype=np.int64)
        found = hash_matches(queries, stored, radius, pairs)
        if found > pairs.shape[0]:
            pairs = np.empty((found, 2), dtype=np.int64)
            hash_matches(queries, stored, radius, pairs)
        return pairs[:found, 0], pairs[:found, 1]
