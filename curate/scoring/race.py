"""Density of a stream in one pass: a RACE sketch over signs of random projections of centred embeddings.

Coleman and Shrivastava, WWW 2020 (arXiv 1912.02283); density sampling with it: Sachdeva et al., 2024 (2402.09668).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from curate.errors import UsageError
from curate_kernels.arrays import F32, F64, as_rows
from curate_kernels.race import U16, add_codes, mean_counts, sign_codes

_CHUNK = 4096  # rows hashed at a time: 4 MB of codes
_LEAST_SIZE = 256  # in fewer dimensions signs and Hadamard matrices point in too few directions


class Race:
    """Counters of hash codes, (hashes, 2^bits) float64; adds, merges, and takes rows out again.

    A row's mean counter estimates its density Σ_x (1 - θ(x, y)/π)^bits, θ the angle of (x - centre, offset) and
    (y - centre, offset), without bias, and the better the more hashes (error ~ 1/√hashes). Higher means denser.
    Without centring, embeddings of one encoder lie in a cone, and everything collides. With offset 0, all planes pass
    through the centre, so rows near it are nobody's neighbours: those of a class with most of the rows, or the usual
    ones of a collection. With the rows' typical distance (`around`), ranks are close to a Gaussian density's.
    The defaults take 2 MB.

    centre: (d,), fixed for the sketch's life; hashes ≥ 1; 1 ≤ bits ≤ 16; offset ≥ 0, in the units of x
    """

    def __init__(self, centre: Any, hashes: int = 1000, bits: int = 8, seed: int = 0, offset: float = 0.0) -> None:
        if hashes < 1 or not 1 <= bits <= 16 or seed < 0 or not 0 <= offset < np.inf:
            raise UsageError(
                f"hashes {hashes}, bits {bits}, seed {seed}, offset {offset}:"
                " needed are hashes ≥ 1, bits 1-16, seed ≥ 0, offset ≥ 0"
            )
        self.centre: F32 = as_rows(np.atleast_2d(centre), "centre")[0]
        self.counts: F64 = np.zeros((hashes, 1 << bits))
        self.bits = bits
        self.seed = seed
        self.offset = offset
        size = max(_LEAST_SIZE, 1 << (self.centre.shape[0] - 1).bit_length())
        blocks = 2 + -(-bits * hashes // size)
        uniform = _uniform(blocks * size + bits * hashes, seed)
        self._flips: F32 = np.where(uniform < 0.5, np.float32(-1), np.float32(1))[: blocks * size].reshape(-1, size)
        # Three unscaled Hadamard products make a projection's deviation `size` times the row's norm.
        # Stratified: each bit's limits over all hashes are the quantiles of a normal distribution, in random order.
        rank = uniform[blocks * size :].reshape(bits, hashes).argsort(axis=1).argsort(axis=1)
        self._limit: F32 = (size * offset * ndtri((rank + 0.5) / hashes)).astype(np.float32).ravel()

    @classmethod
    def around(cls, x: Any, hashes: int = 1000, bits: int = 8, seed: int = 0) -> Race:
        """Return an empty sketch: centre and offset are the mean of x (n, d) and the rows' RMS distance from it."""
        rows = as_rows(x)
        if not rows.shape[0]:
            raise UsageError("no rows to take a centre from; give the first batch, or a centre")
        centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        offset = float(np.sqrt(np.square(rows - centre, dtype=np.float64).sum(axis=1).mean()))
        return cls(centre, hashes, bits, seed, offset)

    @property
    def n(self) -> float:
        """Number of rows in the sketch."""
        return float(self.counts[0].sum())

    def codes(self, x: Any) -> U16:
        """Return the hash codes (m, hashes) uint16 of rows x (m, d), for `add_codes` and `query_codes`.

        A row has the same codes in every batch and on every machine.

        Raises:
            UsageError: x has not the centre's dimensions.
            ValueError: x holds NaN or infinity.
        """
        if np.ndim(x) != 2 or x.shape[1] != self.centre.shape[0]:
            raise UsageError(f"rows of shape {np.shape(x)} for a sketch of {self.centre.shape[0]} dimensions")
        codes = np.empty((x.shape[0], self.counts.shape[0]), dtype=np.uint16)
        for part in _chunks(x.shape[0]):
            sign_codes(as_rows(x[part]), self.centre, self._flips, self._limit, self.bits, codes[part])
        return codes

    def add(self, x: Any, sign: float = 1.0) -> None:
        """Add rows x (m, d); with sign -1 take them out again. Raises as `codes` does."""
        for part in _chunks(x.shape[0]):
            self.add_codes(self.codes(x[part]), sign)

    def add_codes(self, codes: U16, sign: float = 1.0) -> None:
        """Add the rows whose codes (m, hashes) these are; with sign -1 take them out again."""
        add_codes(codes, sign, self.counts)

    def query(self, x: Any, exclude_self: bool = False) -> F64:
        """Return the density (m,) float64 at rows x (m, d): expected collisions with the rows in the sketch.

        With `exclude_self` each row of x is one that the sketch holds, and is left out of its own density.
        """
        parts = [self.query_codes(self.codes(x[part]), exclude_self) for part in _chunks(x.shape[0])]
        return np.concatenate([np.zeros(0), *parts])

    def query_codes(self, codes: U16, exclude_self: bool = False) -> F64:
        """Return the density (m,) float64 of the rows whose codes (m, hashes) these are, as `query` does."""
        out = np.empty(codes.shape[0])
        mean_counts(codes, self.counts, out)
        return out - 1.0 if exclude_self else out  # a row hits its own counter in every hash

    def merge(self, other: Race) -> None:
        """Add another's counters. Raises UsageError as `check_same_hashes` does."""
        self.check_same_hashes(other)
        self.counts += other.counts

    def check_same_hashes(self, other: Race) -> None:
        """Raise UsageError when another sketch hashes by another centre, seed or shape, so that counters differ."""
        if self.counts.shape != other.counts.shape or self.seed != other.seed:
            ours, theirs = ((r.counts.shape[0], r.bits, r.seed) for r in (self, other))
            raise UsageError(f"sketches of (hashes, bits, seed) {ours} and {theirs} do not go together; use the same")
        if not np.array_equal(self.centre, other.centre) or self.offset != other.offset:
            raise UsageError("sketches with different centres or offsets do not go together; fix one for all of them")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return counters, centre, offset and seed as named arrays, to be saved."""
        seed, offset = np.array(self.seed, dtype=np.int64), np.array(self.offset)
        return {"counts": self.counts, "centre": self.centre, "seed": seed, "offset": offset}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Race:
        """Return the sketch that `arrays()` gave."""
        hashes, cells = arrays["counts"].shape
        seed, offset = int(arrays["seed"]), float(arrays["offset"])
        race = cls(arrays["centre"], hashes, cells.bit_length() - 1, seed, offset)
        race.counts[:] = arrays["counts"]
        return race


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def _uniform(count: int, seed: int) -> F64:
    """Return numbers in (0, 1) from the generator's raw bits, which numpy keeps: a saved sketch stays readable."""
    raw = np.random.PCG64(seed).random_raw(count)
    return ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
