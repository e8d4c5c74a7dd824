"""Search of kept float16 rows: rough similarities tell which rows are computed exactly, one after the other.

Rows lie as the bits of their float16 numbers, a type that Numba has not on a CPU. An exact similarity is a function of
the two rows alone, whatever named the candidate, so that every way of searching gives equal numbers.
"""

from __future__ import annotations

import math

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, I64
from curate_kernels.search import U16, U64, Asked, Coded, Kept, Rotated

PAGE = 64  # rows whose codes lie together
_MANY, _FEW = 256, 32  # products that are compared at once


@kernel
def _exact(query: F32, row: U16) -> np.float32:
    """Return the inner product of float32 numbers and the bits of finite float16 numbers, in float32."""
    total = np.float32(0.0)
    for c in range(row.shape[0]):
        bits = np.int32(row[c])
        size = np.int32((bits & np.int32(0x7FFF)) << np.int32(13))
        normal = np.int32(size + np.int32(112 << 23)).view(np.float32)
        small = np.int32(size + np.int32(113 << 23)).view(np.float32) - np.float32(2.0**-14)
        value = small if size < np.int32(1 << 23) else normal
        total += query[c] * (-value if bits > np.int32(0x7FFF) else value)
    return np.float32(total)


@kernel
def pair_inner(left: I64, right: I64, queries: F32, rows: U16, out: F32) -> None:
    """Write the inner product of query left[i] and row right[i], as a search computes it.

    left, right: (p,) int64; queries: (b, d) float32; rows: (n, d) uint16, bits of float16; out: (p,) float32
    """
    for i in range(left.shape[0]):
        out[i] = _exact(queries[left[i]], rows[right[i]])


@kernel
def _weigh(i: int, row: int, ask: Asked, kept: Kept) -> None:
    """Compute one similarity and enter it among query i's best, and as its twin where it is one."""
    value = np.float32(_exact(ask.queries[i], kept.rows[row]))
    best = ask.best[i]
    at = best.shape[0] - 1
    if value > best[at]:
        while at > 0 and best[at - 1] < value:
            best[at] = best[at - 1]
            at -= 1
        best[at] = value
    twin_sim = ask.twin_sim[i]
    if value < ask.least[0] or value < twin_sim or (value == twin_sim and row > ask.twin_row[i]):
        return
    if ask.captioned[i] and ask.least[1] > -1.0:
        if kept.flags[row] & 2 == 0:
            return
        if np.float32(_exact(ask.captions[i], kept.captions[row])) < ask.least[1]:
            return
    ask.twin_sim[i] = value
    ask.twin_row[i] = row


@kernel
def _bar(i: int, ask: Asked) -> np.float32:
    """Return the similarity above which a row can be one of the best, or the twin (or as near, and lower)."""
    twin = max(ask.least[0], np.float64(ask.twin_sim[i])) - 1e-6
    return np.float32(min(np.float64(ask.best[i, ask.best.shape[1] - 1]), twin))


@kernel
def _any_above(values: F32, units: F32, bar: np.float32) -> bool:
    """Return whether a product is above the bar; counted, as a maximum is not vectorised."""
    over = np.int32(0)
    for j in range(values.shape[0]):
        over += np.int32(np.float32(values[j]) * units[j] > bar)
    return bool(over > 0)


@kernel
def _top(part: F32, right: F32, base: int, kept: Kept, rough: F32, row: I64) -> None:
    """Write the rows of the tile that have the largest products, largest first; -1 where there are fewer."""
    k = row.shape[0]
    rough[:] = -np.inf
    row[:] = -1
    for start in range(0, part.shape[0], _FEW):
        values, units = part[start : start + _FEW], right[start : start + _FEW]
        if not _any_above(values, units, rough[k - 1]):
            continue
        for j in range(values.shape[0]):
            value, new = np.float32(np.float32(values[j]) * units[j]), base + start + j
            if value > rough[k - 1] and kept.flags[new] & kept.need == kept.need:
                at = k - 1
                while at > 0 and rough[at - 1] < value:
                    rough[at], row[at] = rough[at - 1], row[at - 1]
                    at -= 1
                rough[at], row[at] = value, new


@kernel
def _is_new(row: int, known: I64) -> bool:
    new = True
    for j in range(known.shape[0]):
        new &= known[j] != row
    return new


@kernel
def near_tile(product: F32, left: F32, right: F32, room: F32, base: int, ask: Asked, kept: Kept) -> None:
    """Enter the rows of a tile among each query's best and as its twin, computing what the product leaves open.

    The similarity of query i and row base + j is left[i] right[j] product[i, j] ± room[i].

    product: (b or more, m or more) float32 or int32; left (> 0), room: (b,), right: (m,) float32
    base: number of the tile's first row
    """
    k = ask.best.shape[1]
    rough = np.empty(k, dtype=np.float32)
    known = np.full(k, -1)
    for i in range(left.shape[0]):
        part = product[i, : right.shape[0]]
        known[:] = -1
        if ask.best[i, k - 1] == -np.inf:  # nothing to beat yet: the whole tile would be computed
            _top(part, right, base, kept, rough, known)
            for j in range(k):
                if known[j] >= 0:
                    _weigh(i, known[j], ask, kept)
        bar = np.float32((_bar(i, ask) - room[i]) / left[i])
        for many in range(0, part.shape[0], _MANY):
            stop = min(many + _MANY, part.shape[0])
            if not _any_above(part[many:stop], right[many:stop], bar):
                continue
            for start in range(many, stop, _FEW):
                values, units = part[start : start + _FEW], right[start : start + _FEW]
                if not _any_above(values, units, bar):
                    continue
                for j in range(values.shape[0]):
                    row = base + start + j
                    if np.float32(values[j]) * units[j] <= bar or kept.flags[row] & kept.need != kept.need:
                        continue
                    if _is_new(row, known):
                        _weigh(i, row, ask, kept)
                        bar = np.float32((_bar(i, ask) - room[i]) / left[i])


@kernel
def _ones(bits: np.uint64) -> np.uint64:
    """Return how many of 64 bits are set; the compiler makes one instruction of it where the processor has it."""
    pairs = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + ((pairs >> np.uint64(2)) & np.uint64(0x3333333333333333))
    eights = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (eights * np.uint64(0x0101010101010101)) >> np.uint64(56)


@kernel
def _estimate(codes: U64, planes: U64, unit: np.float32, factor: F32, near: np.float32, total: U64, out: F32) -> None:
    """Write the estimates of a page's similarities to a query: q.c + a + f s.Rq."""
    total[:] = np.uint64(0)
    for w in range(codes.shape[0]):
        code = codes[w]
        t0, t1, t2, t3 = planes[w, 0], planes[w, 1], planes[w, 2], planes[w, 3]
        for j in range(PAGE):
            count = _ones(code[j] ^ t3)
            count = count + count + _ones(code[j] ^ t2)
            count = count + count + _ones(code[j] ^ t1)
            total[j] += count + count + _ones(code[j] ^ t0)
    most = np.int64(15 * 64 * codes.shape[0])
    for j in range(PAGE):
        product = np.float32(unit) * np.float32(most - np.int64(2) * np.int64(total[j]))
        out[j] = np.float32(near) + factor[0, j] + factor[1, j] * product


@kernel
def _inner(left: F32, right: F32) -> np.float32:
    total = np.float32(0.0)
    for c in range(left.shape[0]):
        total += left[c] * right[c]
    return np.float32(total)


@kernel
def rough_best(
    visit_list: I64, visit_query: I64, ask: Asked, kept: Kept, lists: Coded, turned: Rotated, rough: F32, row: I64
) -> None:
    """Enter the rows of lists among each query's best by estimate, of equals the lowest; visits as in `near_lists`.

    rough, row: (b, c) float32, descending, -inf where empty, and int64, -1 where empty, in place
    """
    count = rough.shape[1]
    total = np.empty(PAGE, dtype=np.uint64)
    values = np.empty(PAGE, dtype=np.float32)
    for v in range(visit_list.shape[0]):
        i, c = visit_query[v], visit_list[v]
        near = np.float32(_inner(ask.queries[i], lists.centre[c]))
        page = lists.first[c]
        while page >= 0:
            _estimate(lists.codes[page], turned.planes[i], turned.unit[i], lists.factor[page], near, total, values)
            for j in range(PAGE):
                value, new = values[j], lists.slot[page, j]
                if value < rough[i, count - 1] or new < 0 or kept.flags[new] & kept.need != kept.need:
                    continue
                if value == rough[i, count - 1] and new > row[i, count - 1]:
                    continue
                at = count - 1
                while at > 0 and (rough[i, at - 1] < value or (rough[i, at - 1] == value and row[i, at - 1] > new)):
                    rough[i, at], row[i, at] = rough[i, at - 1], row[i, at - 1]
                    at -= 1
                rough[i, at], row[i, at] = value, new
            page = lists.follow[page]


@kernel
def weigh_known(known: I64, ask: Asked, kept: Kept, bar: F32) -> None:
    """Enter rows that are likely to be near, and write the bar that any other row must then pass.

    known: (b, c) int64, rows to compute for each query, -1: none; bar: (b,) float32, out
    """
    for i in range(known.shape[0]):
        for j in range(known.shape[1]):
            if known[i, j] >= 0:
                _weigh(i, known[i, j], ask, kept)
        bar[i] = _bar(i, ask)


@kernel
def near_lists(
    visit_list: I64,
    visit_query: I64,
    known: I64,
    bar: F32,
    sigmas: float,
    ask: Asked,
    kept: Kept,
    lists: Coded,
    turned: Rotated,
) -> None:
    """Enter the rows of lists among each query's best and as its twin; codes tell which are computed.

    RaBitQ (Gao and Long, SIGMOD 2024, arXiv 2405.12497), with the query's own rotation coded once: of a row x in a list
    of centre c, s = sign(R(x-c)), the estimate is q.c + a + f s.Rq (a, f: `residual_codes`), and its standard deviation
    is f sqrt((1 - 2/pi) |q-c|^2 + e^2) with e the error of coding Rq.

    What is entered does not depend on the order of the visits, nor on which of them are made elsewhere: the bar stays.

    visit_list, visit_query: (v,) int64, which query reads which list, together where the list is the same
    known: (b, c) int64, rows that are entered already, -1: none
    bar: (b,) float32, similarity above which a row is computed; sigmas: standard deviations an estimate may be too low
    """
    total = np.empty(PAGE, dtype=np.uint64)
    rough = np.empty(PAGE, dtype=np.float32)
    for v in range(visit_list.shape[0]):
        i, c = visit_query[v], visit_list[v]
        near = np.float32(_inner(ask.queries[i], lists.centre[c]))
        gap = max(np.float32(2.0) - np.float32(2.0) * near, np.float32(0.0))
        room = np.float32(sigmas * math.sqrt((1.0 - 2.0 / math.pi) * gap + turned.error[i] * turned.error[i]))
        page = lists.first[c]
        while page >= 0:
            _estimate(lists.codes[page], turned.planes[i], turned.unit[i], lists.factor[page], near, total, rough)
            spread = lists.factor[page, 1]
            over = np.int32(0)
            for j in range(PAGE):
                rough[j] += room * spread[j]
                over += np.int32(rough[j] > bar[i])
            for j in range(PAGE if over > 0 else 0):
                row = lists.slot[page, j]
                if rough[j] <= bar[i] or row < 0 or kept.flags[row] & kept.need != kept.need:
                    continue
                if _is_new(row, known[i]):
                    _weigh(i, row, ask, kept)
            page = lists.follow[page]
