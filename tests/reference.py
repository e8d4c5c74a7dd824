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
    alike,
    has_text,
    eps,
    luck,
    bar,
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
        return same_text and (same_pixels(i, j) or sim_image[i, j] >= 1 - eps[2 if alike[i, j] else 0])

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
            gains = [gain_image[i], gain_text[i]] if has_text[i] else [gain_image[i]]
            with np.errstate(divide="ignore"):
                key = np.log(max(min(np.float64(np.mean(gains, dtype=np.float32)), bar[1]), 0)) + luck[i]
            if key >= bar[0] or bar[0] == -np.inf:
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


def sign_codes(x, centre, flips, limit, bits, codes):
    """Write out the Hadamard matrix, multiply in float64, and read bit j of hash r at projection g = j rows + r."""
    size, rows = flips.shape[1], codes.shape[1]
    hadamard = np.array([[(-1.0) ** (i & j).bit_count() for j in range(size)] for i in range(size)])
    for i in range(len(x)):
        row = np.zeros(size)
        row[: x.shape[1]] = x[i].astype(float) - centre
        for flip in flips[:2]:
            row = hadamard @ (flip * row)
        projections = np.concatenate([hadamard @ (flip * row) for flip in flips[2:]])
        for r in range(rows):
            codes[i, r] = sum(1 << j for j in range(bits) if projections[j * rows + r] > limit[j * rows + r])


def add_codes(codes, sign, counts):
    """One counter after the other."""
    for row in codes:
        for r, code in enumerate(row):
            counts[r, code] += sign


def mean_counts(codes, counts, out):
    """Average over the hashes."""
    for i, row in enumerate(codes):
        out[i] = np.mean([counts[r, code] for r, code in enumerate(row)])


def gaussian_sums(sim, left, right, scale, row_sum, column_sum):
    """Square every distance, in float64."""
    for i in range(sim.shape[0]):
        for j in range(sim.shape[1]):
            square = max(float(left[i]) + float(right[j]) - 2 * float(sim[i, j]), 0.0)
            row_sum[i] += np.exp(-scale * square)
            column_sum[j] += np.exp(-scale * square)


def angular_sums(sim, power, row_sum, column_sum):
    """Take the angle of every pair, in float64."""
    for i in range(sim.shape[0]):
        for j in range(sim.shape[1]):
            value = (1 - np.arccos(np.clip(float(sim[i, j]), -1, 1)) / np.pi) ** power
            row_sum[i] += value
            column_sum[j] += value


def recheck_topk(rough, margin, queries, rows, base, best_sim, best_row):
    """Forget the margin: compute every pair that counts, and push it."""
    sim = np.array([[(query * row).sum() for row in rows] for query in queries], dtype=np.float32)
    sim = np.where(rough == -np.inf, -np.inf, sim.reshape(rough.shape))
    push_topk(sim, np.ones(len(rows), dtype=bool), base, best_sim, best_row)


def knn_shapley(order, label, target, k, out):
    """Weigh what a row adds to every set of the other rows: the definition of the Shapley value, for few rows."""
    import itertools
    import math

    n = order.shape[1]
    for nearest, wanted in zip(order.tolist(), target.tolist(), strict=True):

        def utility(rows, nearest=nearest, wanted=wanted):
            return sum(label[row] == wanted for row in [row for row in nearest if row in rows][:k]) / k

        for row in nearest:
            others = [other for other in nearest if other != row]
            for size in range(n):
                for rows in itertools.combinations(others, size):
                    weight = 1 / (n * math.comb(n - 1, size))
                    out[row] += weight * (utility({*rows, row}) - utility(set(rows)))


def shrink_luma(pixels, first_x, count_x, weight_x, first_y, count_y, weight_y, out):
    """Resize one line after the other with whole numbers of 22 binary places; which axis is first, by PIL 13's rule."""

    def resized(lines, first, count, weight):
        rows = np.zeros((len(lines), len(first)), dtype=np.int64)
        for i, line in enumerate(lines):
            for c in range(len(first)):
                taps = [int(line[first[c] + t]) * int(weight[c, t]) for t in range(count[c])]
                rows[i, c] = min(max((sum(taps) + 2**21) >> 22, 0), 255)
        return rows

    luma = (pixels.astype(np.int64) @ [19595, 38470, 7471] + 2**15) >> 16
    less_x, less_y = luma.shape[1] - out.shape[1], luma.shape[0] - out.shape[0]
    if less_y > max(0, 2 * less_x):
        out[:] = resized(resized(luma.T, first_y, count_y, weight_y).T, first_x, count_x, weight_x)
    else:
        out[:] = resized(resized(luma, first_x, count_x, weight_x).T, first_y, count_y, weight_y).T


def phash_bits(small, basis, out):
    """Compare each low frequency with their median."""
    low = (basis @ small.astype(float) @ basis.T).ravel()
    out[0] = int("".join("1" if value > np.median(low) else "0" for value in low), 2)
    ordered = np.sort(low)
    return ordered[len(low) // 2] - ordered[len(low) // 2 - 1]


def nearest_hash(queries, stored, position, distance):
    """Count the bits of each difference in Python."""
    for i, query in enumerate(queries):
        bits = [(int(query) ^ int(other)).bit_count() for other in stored]
        distance[i] = min(bits, default=65)
        position[i] = bits.index(min(bits)) if bits else -1


def hash_matches(queries, stored, radius, out):
    """List every pair of a query and a stored hash."""
    left, right = ([int(word) for word in words] for words in (queries, stored))
    pairs = [(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if (a ^ b).bit_count() <= radius]
    for row, pair in enumerate(pairs[: len(out)]):
        out[row] = pair
    return len(pairs)


def hash_pairs(hashes, radius, out):
    """List every pair."""
    words = [int(word) for word in hashes]
    n = len(words)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if (words[i] ^ words[j]).bit_count() <= radius]
    for row, pair in enumerate(pairs[: len(out)]):
        out[row] = pair
    return len(pairs)


def luma_counts(luma, histogram):
    """Count values, and sum the Laplacian of the inside."""
    histogram[:] = [(luma == value).sum() for value in range(256)]
    grey = luma.astype(np.int64)
    inside = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return int(np.abs(inside).sum())


def opponent_moments(pixels, step, out):
    """Average blocks of each step-th row, then take mean and variance."""
    wide = min(step, pixels.shape[1])
    columns = pixels.shape[1] // wide
    rows = pixels[::step, : columns * wide].astype(float)
    red, green, blue = np.moveaxis(rows.reshape(len(rows), columns, wide, 3).mean(axis=2), 2, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    out[:] = rg.mean(), yb.mean(), rg.var(), yb.var()


def exp2_sums(product, row_scale, column_scale, row_bias, column_bias, own, row, column, span):
    """Build the whole matrix of exponents in float64, and sum its powers of two without each row's own column."""
    exponent = product * np.outer(row_scale, column_scale).astype(float) + np.add.outer(row_bias, column_bias)
    power = 2.0**exponent
    for i in range(len(power)):
        if 0 <= i + own < power.shape[1]:
            power[i, i + own] = 0
    row[:], column[:] = power.sum(axis=1), power.sum(axis=0)
    span[:] = np.rint(exponent).min(), np.rint(exponent).max()


def pair_inner(left, right, queries, rows, out):
    out[:] = [queries[i] @ rows[j].view(np.float16).astype(np.float32) for i, j in zip(left, right, strict=True)]


def _enter_kept(i, row, ask, kept):
    """Enter one row among a query's best, and as its twin."""
    if kept.flags[row] & kept.need != kept.need:
        return
    sim = ask.queries[i] @ kept.rows[row].view(np.float16).astype(np.float32)
    ask.best[i] = sorted([*ask.best[i], sim], reverse=True)[:-1]
    same = not ask.captioned[i] or ask.least[1] <= -1
    if not same and kept.flags[row] & 2:
        same = ask.captions[i] @ kept.captions[row].view(np.float16).astype(np.float32) >= ask.least[1]
    if sim >= ask.least[0] and same and (sim, -row) > (ask.twin_sim[i], -ask.twin_row[i]):
        ask.twin_sim[i], ask.twin_row[i] = sim, row


def near_tile(product, left, right, room, base, ask, kept):
    """Compute every pair; what the product says is not looked at."""
    for i in range(len(left)):
        for j in range(len(right)):
            _enter_kept(i, base + j, ask, kept)


def _listed(c, near, i, ask, lists, turned):
    """Return (row, estimate, f) of a list's rows, from signs of 1 and -1."""
    out = []
    page = lists.first[c]
    while page >= 0:
        for place, row in enumerate(lists.slot[page]):
            bits = [int(word) >> j & 1 for word in lists.codes[page, :, place] for j in range(64)]
            digits = sum(
                2**p * np.array([2 * (int(word) >> j & 1) - 1 for word in turned.planes[i, :, p] for j in range(64)])
                for p in range(4)
            )
            a, f = lists.factor[page, :, place]
            if row >= 0:
                out.append((row, near + a + f * turned.unit[i] * float((2 * np.array(bits) - 1) @ digits), f))
        page = lists.follow[page]
    return out


def rough_best(visit_list, visit_query, ask, kept, lists, turned, rough, row):
    for c, i in zip(visit_list, visit_query, strict=True):
        for number, value, _ in _listed(c, ask.queries[i] @ lists.centre[c], i, ask, lists, turned):
            if kept.flags[number] & kept.need == kept.need:
                entries = [*zip(rough[i].tolist(), row[i].tolist(), strict=True), (float(value), number)]
                entries = sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:-1]
                rough[i], row[i] = zip(*entries, strict=True)


def weigh_known(known, ask, kept, bar):
    for i, numbers in enumerate(known):
        for number in numbers[numbers >= 0]:
            _enter_kept(i, number, ask, kept)
        bar[i] = min(ask.best[i, -1], max(ask.least[0], ask.twin_sim[i]) - 1e-6)


def near_lists(visit_list, visit_query, known, bar, sigmas, ask, kept, lists, turned):
    """Enter the rows of the visited lists whose estimate, plus its error, is above the bar."""
    for c, i in zip(visit_list, visit_query, strict=True):
        near = float(ask.queries[i] @ lists.centre[c])
        deviation = np.sqrt((1 - 2 / np.pi) * max(2 - 2 * near, 0) + turned.error[i] ** 2)
        for number, value, f in _listed(c, near, i, ask, lists, turned):
            if value + sigmas * f * deviation > bar[i] and number not in known[i]:
                _enter_kept(i, number, ask, kept)


def half_to_float(rows, out):
    out[: len(rows)] = rows.view(np.float16)


def half_to_bfloat16(rows, out):
    """Round the number to 8 significant bits, ties to even, and keep the upper half of its float32."""
    x = rows.view(np.float16).astype(np.float64)
    fraction, exponent = np.frexp(x)
    short = np.ldexp(np.rint(fraction * 256) / 256, exponent).astype(np.float32)
    out[: len(rows)] = short.view(np.uint32) >> 16


def half_to_int8(rows, out, scale, error):
    x = rows.view(np.float16).astype(np.float32)
    for i in range(len(x)):
        scale[i] = max(np.abs(x[i]).max() / np.float32(127), np.float32(1e-30))
        out[i] = np.rint(x[i] * (np.float32(1) / scale[i]))
        error[i] = np.linalg.norm(x[i] - scale[i] * out[i].astype(np.float32))


def residual_codes(rotated, centre, at, code, factor):
    for i in range(len(rotated)):
        v = rotated[i].astype(np.float64) - centre[at[i]]
        s = np.where(v >= 0, 1, -1)
        f = v @ v / np.abs(v).sum() if v.any() else 0.0
        factor[i] = centre[at[i]] @ v - f * (s @ centre[at[i]]), f
        code[i] = [sum(1 << j for j in range(64) if s[64 * w + j] > 0) for w in range(code.shape[1])]


def digit_planes(rotated, planes, unit, error):
    for i, row in enumerate(rotated):
        unit[i] = max(np.abs(row).max() / np.float32(15), np.float32(1e-30))
        level = np.clip(np.floor((row / unit[i] + np.float32(16)) / 2), 0, 15).astype(int)
        error[i] = np.linalg.norm(row - unit[i] * (2 * level - 15))
        for w in range(planes.shape[1]):
            for p in range(4):
                planes[i, w, p] = sum(1 << j for j in range(64) if level[64 * w + j] >> p & 1)


def nearest_list(product, unit, at, sim):
    values = product.astype(np.float32) * unit
    at[:] = np.argmax(values, axis=1)
    sim[:] = values.max(axis=1)


def choose_lists(product, unit, most, length, few, many, chosen):
    """Take lists in order of their steps until there are enough rows."""
    values = product.astype(np.float32) * unit * (np.float32(1023.5) / most)[:, None] + np.float32(1024)
    step = np.clip(values.astype(int), 0, 2047)
    chosen[:] = 0
    for i in range(len(step)):
        read = 0
        for c in np.argsort(-step[i], kind="stable"):
            chosen[c, i] = 2 if read < few else 1 if read < many else 0
            read += length[c]


def add_rows(rows, at, total):
    np.add.at(total, at, rows)


def append_codes(at, rows, code, factor, first, last, length, follow, free, codes, factors, slot):
    """Take the next free page for each list whose last one is full."""
    pages = list(free)
    for c, number, bits, numbers in zip(at, rows, code, factor, strict=True):
        place = length[c] % slot.shape[1]
        if place == 0:
            page = pages.pop(0)
            slot[page], factors[page], codes[page], follow[page] = -1, 0, 0, -1
            if length[c]:
                follow[last[c]] = page
            else:
                first[c] = page
            last[c] = page
        slot[last[c], place], factors[last[c], :, place], codes[last[c], :, place] = number, numbers, bits
        length[c] += 1
    return len(free) - len(pages)


def sieve_rows(sim, guess, room, plus, best, value, size, gain):
    """Walk through the rows with one list of taken rows per sieve."""
    gain[:] = -1
    for s in range(len(guess)):
        near = best[s].astype(np.float64)
        for i, row in enumerate(sim.astype(np.float64)):
            if size[s] >= room:
                continue
            more = np.maximum(near, row).mean() - near.mean()
            bar = guess[s] / 2 / room if plus else (guess[s] / 2 - value[s]) / (room - size[s])
            if more >= bar:
                near = np.maximum(near, row)
                gain[i, s] = more
                value[s] += more
                size[s] += 1
        best[s] = near


def cover_rows(sim, near, picked, gain):
    """Compute every gain for every pick; argmax takes the lowest of equals."""
    _cover(sim, near, picked, gain, lambda done, free: free)


def cover_some(sim, draw, near, picked, gain):
    def drawn(done, free):
        places = [int(u * len(free)) for u in draw[done]]
        return sorted({order[place] for place in places})

    order = list(range(len(sim)))

    def forget(pick):
        order[order.index(pick)] = order[-1]
        order.pop()

    _cover(sim, near, picked, gain, drawn, forget)


def _cover(sim, near, picked, gain, among, after=lambda pick: None):
    free = list(range(len(sim)))
    for done in range(len(picked)):
        gains = {i: np.maximum(sim[i].astype(float) - near, 0).sum() for i in among(done, free)}
        best = min(gains, key=lambda i: (-gains[i], i))
        picked[done], gain[done] = best, gains[best]
        near[:] = np.maximum(near, sim[best])
        free.remove(best)
        after(best)


def cover_lists(start, row, sim, near, picked, gain):
    """Make the matrix, with similarities that cover nothing where the lists say nothing."""
    full = np.full((len(start) - 1, len(near)), -np.inf)
    for i in range(len(start) - 1):
        for e in range(start[i], start[i + 1]):
            full[i, row[e]] = max(full[i, row[e]], sim[e])
    cover_rows(full, near, picked, gain)


def pick_by_messages(neighbor, weight, score, picked, gain):
    free = set(range(len(score)))
    for done in range(len(picked)):
        best = min(free, key=lambda i: (-score[i], i))
        picked[done], gain[done] = best, score[best]
        free.remove(best)
        for other, share in zip(neighbor[best], weight[best], strict=True):
            if other in free:
                score[other] -= share * max(score[best], 0.0)


def probe_cells(column, pair, at, near, power, score):
    for (a, b), (x, y) in zip(pair, at, strict=True):
        plane = np.stack([column[a], column[b]])
        best = np.argmin(np.abs(plane[0] - x) + np.abs(plane[1] - y))
        score[best] += 1
        distance = np.abs(plane[0] - plane[0, best]) + np.abs(plane[1] - plane[1, best])
        others = [i for i in np.argsort(distance, kind="stable") if i != best][:near]
        copies = [i for i in others if distance[i] == 0]
        if copies:
            score[copies] -= 1 / len(copies)
        elif others:
            share = distance[others].astype(float) ** -power
            score[others] -= share / share.sum()


def resize_rgb(pixels, first_x, count_x, weight_x, first_y, count_y, weight_y, y_first, out):
    """Each pass as a sum over a dense matrix of weights; Python's whole numbers cannot overflow."""

    def along(axis, first, count, weight):
        dense = np.zeros((len(first), values.shape[axis]), dtype=object)
        for i in range(len(first)):
            for t in range(count[i]):
                dense[i, first[i] + t] = int(weight[i, t])
        total = np.moveaxis(np.tensordot(dense, values, axes=(1, axis)), 0, axis)
        return np.clip(((total + 2**21) // 2**22).astype(np.int64), 0, 255).astype(object)

    values = pixels.astype(object)
    passes = [(1, first_x, count_x, weight_x), (0, first_y, count_y, weight_y)]
    for axis, *taps in passes[::-1] if y_first else passes:
        values = along(axis, *taps)
    out[:] = values.astype(np.uint8)
