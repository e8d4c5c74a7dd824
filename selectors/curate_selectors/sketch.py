"""A RACE sketch: the density of rows among those that it has seen, in one pass and a fixed size."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from curate_kernels.arrays import F32, F64
from curate_kernels.race import U16, add_codes, mean_counts, sign_codes

_LEAST_SIZE = 256  # in fewer dimensions signs and Hadamard matrices point in too few directions


class Sketch:
    """Counters of hash codes, (hashes, 2^bits) float64: Coleman and Shrivastava, WWW 2020, arXiv:1912.02283.

    A row's mean counter is, in expectation, Σ_x (1 - θ(x, y)/π)^bits over the rows x added, itself included. Angles θ
    are taken around the sample's mean, offset by its RMS distance: without, all embeddings of an encoder collide.

    sample: (m, d) float32, m ≥ 1, like the rows to come
    """

    def __init__(self, sample: F32, hashes: int, bits: int, seed: int) -> None:
        self._centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        offset = float(np.sqrt(np.square(sample - self._centre, dtype=np.float64).sum(axis=1).mean()))
        size = max(_LEAST_SIZE, 1 << (sample.shape[1] - 1).bit_length())
        blocks = 2 + -(-bits * hashes // size)
        raw = np.random.PCG64(seed).random_raw(blocks * size + bits * hashes)
        uniform = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        self._flips = np.where(uniform < 0.5, np.float32(-1), np.float32(1))[: blocks * size].reshape(-1, size)
        # Limits are the quantiles of a normal distribution in random order, as three Hadamard products scale them.
        rank = uniform[blocks * size :].reshape(bits, hashes).argsort(axis=1).argsort(axis=1)
        self._limit: F32 = (size * offset * ndtri((rank + 0.5) / hashes)).astype(np.float32).ravel()
        self._bits = bits
        self._counts: F64 = np.zeros((hashes, 1 << bits))
        self.n = 0

    def codes(self, x: F32) -> U16:
        """Return the hash codes (m, hashes) uint16 of rows x (m, d) float32."""
        codes = np.empty((x.shape[0], self._counts.shape[0]), dtype=np.uint16)
        sign_codes(x, self._centre, self._flips, self._limit, self._bits, codes)
        return codes

    def add(self, codes: U16) -> None:
        """Add the rows of these codes (m, hashes)."""
        add_codes(codes, 1.0, self._counts)
        self.n += codes.shape[0]

    def query(self, codes: U16) -> F64:
        """Return the density (m,) float64 at the rows of these codes: expected collisions with those added."""
        out = np.empty(codes.shape[0])
        mean_counts(codes, self._counts, out)
        return out

    def copy_empty(self) -> Sketch:
        """Return a sketch with the same hashes and nothing in it."""
        twin = object.__new__(Sketch)
        twin.__dict__.update(self.__dict__ | {"_counts": np.zeros_like(self._counts), "n": 0})
        return twin
