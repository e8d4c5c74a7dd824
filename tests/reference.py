"""For each public kernel a twin of the same name and arguments, written the obvious way and slowly."""

import numpy as np
from scipy.stats import multivariate_t


def push_topk(sim, alive, base, best_sim, best_row):
    """Put old and new entries of each row in one list and sort it; a stable sort keeps the first of equals."""
    k = best_sim.shape[1]
    for i in range(len(sim)):
        entries = list(zip(best_sim[i].tolist(), best_row[i].tolist(), strict=True))
        entries += [(float(sim[i, j]), base + j) for j in range(sim.shape[1]) if alive[j]]
        entries.sort(key=lambda entry: -entry[0])
        best_sim[i] = [value for value, _ in entries[:k]]
        best_row[i] = [row for _, row in entries[:k]]


def admit_batch(
    stage,
    kept_twin,
    top_image,
    top_text,
    sim_image,
    sim_text,
    pixel,
    has_text,
    eps,
    admitted,
    batch_twin,
    gain_image,
    gain_text,
):
    """Walk through the batch with a list of what it has admitted so far."""
    k = top_image.shape[1]
    inside = []

    def gain(kept, similarities):
        nearest = sorted([s for s in kept if s > -np.inf] + similarities, reverse=True)[:k]
        return np.mean([1 - s for s in nearest]) if nearest else 1.0

    def is_twin(i, j):
        same_text = not has_text[i] or (has_text[j] and sim_text[i, j] >= 1 - eps[1])
        return same_text and (same_pixels(i, j) or sim_image[i, j] >= 1 - eps[0])

    def same_pixels(i, j):
        return pixel[i] >= 0 and pixel[i] == pixel[j]

    admitted[:], batch_twin[:], gain_image[:], gain_text[:] = False, -1, np.nan, np.nan
    for i in range(len(stage)):
        if stage[i] == 2:
            continue
        gain_image[i] = gain(top_image[i], [sim_image[i, j] for j in inside])
        if has_text[i]:
            gain_text[i] = gain(top_text[i], [sim_text[i, j] for j in inside if has_text[j]])
        if kept_twin[i] >= 0:
            continue
        twins = [j for j in inside if is_twin(i, j)]
        if twins:
            batch_twin[i] = max(twins, key=lambda j: (same_pixels(i, j), same_pixels(i, j) or sim_image[i, j], -j))
        elif stage[i] == 0:
            admitted[i] = True
            inside.append(i)


def pick_farthest(dist, gram, index, outside, outside_index, picked, radius):
    """Take the farthest candidate, lowest row first, until one outside may be farther."""
    count = 0
    while count < len(picked):
        free = np.flatnonzero(dist >= 0)
        if not free.size:
            break
        best = min(free, key=lambda i: (-dist[i], index[i]))
        if (-dist[best], index[best]) > (-outside, outside_index):
            break
        picked[count], radius[count] = best, dist[best]
        count += 1
        dist[free] = np.minimum(dist[free], np.maximum(1 - gram[free, best], 0))
        dist[best] = -1
    return count


def student_log2(leverage, quad, n, d, logdet, out):
    """Build any Psi and residual with the given determinant and quadratic form, and ask scipy for the density."""
    for i in range(len(leverage)):
        psi = np.exp(logdet / d) * np.eye(d)
        residual = np.sqrt(quad[i] * psi[0, 0]) * np.eye(d)[0]
        out[i] = _student_log2(residual, psi, 1 + leverage[i], n + d + 2)


def student_loo_log2(leverage, quad, n, d, logdet, out):
    """Take the row out of (V, W, Psi, nu), here for one feature x = 1, and score it under what is left.

    V^-1 loses x x', the residual under the new W grows to r / (1-h), and Psi loses the share that the row had added.
    """
    for i in range(len(leverage)):
        psi = np.exp(logdet / d) * np.eye(d)
        residual = np.sqrt(quad[i] * psi[0, 0]) * np.eye(d)[0]
        v = leverage[i]
        rest_v = 1 / (1 / v - 1)
        s = 1 + rest_v
        weight = 2.0 * np.eye(d)[0]  # any
        y = weight + residual
        rest_weight = (weight / v - y) * rest_v
        rest_residual = y - rest_weight
        rest_psi = psi - np.outer(rest_residual, rest_residual) / s
        out[i] = _student_log2(rest_residual, rest_psi, s, n - 1 + d + 2)


def _student_log2(residual, psi, s, nu):
    df = nu - len(psi) + 1
    return multivariate_t(shape=psi * s / df, df=df).logpdf(residual) / np.log(2)


def lda_bits(cross, norm, gram, counts, label, seen, shrink, s0, s1):
    """Rebuild coordinates from the inner products, take the row out of its mean and of the scatter, and invert that.

    The space is whitened, so the scatter is the identity; `shrink` of it is fixed and holds nothing of any row.
    """
    total, classes = counts.sum(), len(counts)
    for i, own in enumerate(label):
        products = np.block([[np.atleast_2d(norm[i]), cross[[i]]], [cross[[i]].T, gram]])
        values, vectors = np.linalg.eigh(products)
        x, *means = vectors * np.sqrt(np.maximum(values, 0))
        out_one = int(seen[i])
        left = counts - out_one * (np.arange(classes) == own)
        s0[i] = s1[i] = -np.log2((left[own] + 0.5) / (total - out_one + 0.5 * classes))
        if left[own] < 1:
            continue
        scatter = np.eye(classes + 1)
        if seen[i]:
            off = x - means[own]
            scatter -= (1 - shrink) * counts[own] / left[own] * np.outer(off, off)
            means[own] = (counts[own] * means[own] - x) / left[own]
        precision = max(total - out_one - classes, 1) * np.linalg.inv(scatter)
        logit = [np.log(left[k] + 0.5) - (x - means[k]) @ precision @ (x - means[k]) / 2 for k in range(classes)]
        logit = np.where(counts < 1, -np.inf, logit)
        s1[i] = (np.logaddexp.reduce(logit) - logit[own]) / np.log(2)
