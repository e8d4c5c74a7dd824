"""Sieve-streaming over facility location: several guesses of the best value, each with its own set."""

from __future__ import annotations

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, F64, I64


@kernel
def sieve_rows(sim: F32, guess: F64, room: int, plus: bool, best: F32, value: F64, size: I64, gain: F32) -> None:
    """Offer rows, in order, to every sieve; a sieve takes what gains enough towards its guess.

    f(S) = mean over the reference of max_S sim. Sieve v takes a row where f(S + row) - f(S) ≥ (v/2 - f(S)) / (room -
    |S|), Badanidiyuru et al., KDD 2014, algorithm 2; with `plus` ≥ v / (2 room), Kazemi et al., ICML 2019, algorithm 1.

    sim: (b, r) float32 ≥ 0, similarity to the reference; guess: (s,) float64; room: most rows of a sieve
    best: (s, r) float32, max_S sim; value: (s,) float64, f(S); size: (s,) int64, |S|; all three updated in place
    gain: (b, s) float32, out: what the row added to the sieve, -1 where it was not taken
    """
    r = sim.shape[1]
    for i in range(sim.shape[0]):
        row = sim[i]
        alone = 0.0
        for j in range(r):
            alone += row[j]
        alone /= r
        for s in range(guess.shape[0]):
            gain[i, s] = -1.0
            if size[s] >= room:
                continue
            bar = guess[s] / (2.0 * room) if plus else (0.5 * guess[s] - value[s]) / (room - size[s])
            if alone < bar:  # no row gains more than alone
                continue
            near = best[s]
            more = 0.0
            for j in range(r):
                more += max(row[j] - near[j], np.float32(0.0))
            more /= r
            if more < bar:
                continue
            for j in range(r):
                near[j] = max(row[j], near[j])
            gain[i, s] = more
            value[s] += more
            size[s] += 1
