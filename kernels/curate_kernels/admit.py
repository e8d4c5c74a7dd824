"""The online decision for one micro-batch: duplicates and information gain, one row after the other."""

from __future__ import annotations

import math

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import B1, F32, F64, I64, U8


@kernel
def _mean_gain(kept: F32, batch_sim: F32, admitted: B1, count: int, best: F32) -> float:
    """Return mean(1 - sim) over the k most similar of `kept` and of the admitted among the batch's first `count`."""
    k = best.shape[0]
    for slot in range(k):
        best[slot] = kept[slot]
    for j in range(count):
        value = batch_sim[j]
        if admitted[j] and value > best[k - 1]:
            at = k - 1
            while at > 0 and best[at - 1] < value:
                best[at] = best[at - 1]
                at -= 1
            best[at] = value
    total = 0.0
    found = 0
    for slot in range(k):
        if best[slot] > -np.inf:
            total += 1.0 - best[slot]
            found += 1
    return total / found if found > 0 else 1.0


@kernel
def _twin(i: int, sim_image: F32, sim_text: F32, pixel: I64, alike: B1, has_text: B1, admitted: B1, eps: F32) -> int:
    """Return the admitted earlier batch row that row i duplicates, or -1: equal pixels first, then most similar."""
    best = -1
    best_sim = -np.inf
    for j in range(i):
        if not admitted[j]:
            continue
        same = pixel[i] >= 0 and pixel[i] == pixel[j]
        if not same and sim_image[i, j] < 1.0 - (eps[2] if alike[i, j] else eps[0]):
            continue
        if has_text[i] and eps[1] < 2.0 and (not has_text[j] or sim_text[i, j] < 1.0 - eps[1]):
            continue
        value = 2.0 if same else sim_image[i, j]
        if value > best_sim:
            best_sim = value
            best = j
    return best


@kernel
def admit_batch(
    stage: U8,
    kept_twin: I64,
    top_image: F32,
    top_text: F32,
    sim_image: F32,
    sim_text: F32,
    pixel: I64,
    alike: B1,
    has_text: B1,
    eps: F32,
    luck: F64,
    bar: F64,
    admitted: B1,
    batch_twin: I64,
    gain_image: F32,
    gain_text: F32,
) -> None:
    """Decide a micro-batch in row order, each row against what was kept before and what the batch admitted before.

    The gain is InfoGrowth's (Dataset Growth, arXiv 2405.18347): g(e) = (1/k) sum over the k nearest kept of
    1 - cos(e, e_j); 1 for the first item of an empty set; the mean over fewer while fewer than k are kept.

    stage: (b,) uint8, 0 free to enter, 1 refused by the cleaning gate (duplicates are still told), 2 out of the game
    kept_twin: (b,) int64, kept row that this one duplicates, -1 for none
    top_image, top_text: (b, k) float32, similarity to the k nearest kept, descending, -inf where there are fewer
    sim_image, sim_text: (b, b) float32, similarity inside the batch
    pixel: (b,) int64, equal numbers mean equal pixels; -1 never equal
    alike: (b, b) bool, the perceptual hashes are near: the third distance counts for the two
    has_text: (b,) bool; a row with text duplicates only a row whose text is the same too
    eps: (3,) float32, near-duplicate distance (1 - cosine) of images, of texts, of images that are alike
    luck: (b,) float64, bar: (2,) float64: a row enters where log(min(gain, bar[1])) + luck reaches bar[0]; where there
        is text, the gain that counts is the mean of both (the weighted reservoir of Efraimidis and Spirakis 2006)
    admitted: (b,) bool, out
    batch_twin: (b,) int64, out: earlier row of the batch that this one duplicates, -1 for none
    gain_image, gain_text: (b,) float32, out: gain of every row not out of the game, admitted or not; NaN otherwise
    """
    best = np.empty(top_image.shape[1], dtype=np.float32)
    for i in range(stage.shape[0]):
        admitted[i] = False
        batch_twin[i] = -1
        gain_image[i] = np.nan
        gain_text[i] = np.nan
        if stage[i] == 2:
            continue
        gain_image[i] = _mean_gain(top_image[i], sim_image[i], admitted, i, best)
        if has_text[i]:
            gain_text[i] = _mean_gain(top_text[i], sim_text[i], admitted & has_text, i, best)
        if kept_twin[i] >= 0:
            continue
        batch_twin[i] = _twin(i, sim_image, sim_text, pixel, alike, has_text, admitted, eps)
        if batch_twin[i] < 0 and stage[i] == 0:
            gain = (gain_image[i] + gain_text[i]) / 2 if has_text[i] else np.float64(gain_image[i])
            admitted[i] = bar[0] == -np.inf or math.log(max(min(gain, bar[1]), 1e-300)) + luck[i] >= bar[0]
