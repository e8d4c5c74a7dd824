"""Short forms of embeddings: float16 bits in other number formats, and rotated residuals as signs."""

from __future__ import annotations

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, F64, I32, I64, U8
from curate_kernels.search import I8, U16, U64


@kernel
def _float(bits16: np.uint16) -> np.float32:
    """Return the float32 of the bits of a finite float16."""
    bits = np.int32(bits16)
    size = np.int32((bits & np.int32(0x7FFF)) << np.int32(13))
    normal = np.int32(size + np.int32(112 << 23)).view(np.float32)
    small = np.int32(size + np.int32(113 << 23)).view(np.float32) - np.float32(2.0**-14)
    value = small if size < np.int32(1 << 23) else normal
    return np.float32(-value if bits > np.int32(0x7FFF) else value)


@kernel
def half_to_float(rows: U16, out: F32) -> None:
    """Write float16 numbers, given by their bits, as float32: 20 times as fast as NumPy. rows, out: (n, d)."""
    for i in range(rows.shape[0]):
        row, to = rows[i], out[i]
        for c in range(row.shape[0]):
            to[c] = _float(row[c])


@kernel
def half_to_bfloat16(rows: U16, out: U16) -> None:
    """Write float16 numbers as bfloat16, both given by their bits, rounded to the nearest, ties to even."""
    for i in range(rows.shape[0]):
        row, to = rows[i], out[i]
        for c in range(row.shape[0]):
            bits = np.float32(_float(row[c])).view(np.int32)
            even = (bits >> np.int32(16)) & np.int32(1)
            to[c] = np.uint16((bits + np.int32(0x7FFF) + even) >> np.int32(16))


@kernel
def half_to_int8(rows: U16, out: I8, scale: F32, error: F32) -> None:
    """Write each row of float16 numbers (bits) as whole multiples, -127 … 127, of its own unit.

    rows, out: (n, d); scale: (n,) float32, out: the unit; error: (n,) float32, out: |row - scale out|
    """
    for i in range(rows.shape[0]):
        row, to = rows[i], out[i]
        top = np.int32(0)
        for c in range(row.shape[0]):
            top = max(top, np.int32(row[c]) & np.int32(0x7FFF))  # larger bits, larger number
        unit = max(np.float32(_float(np.uint16(top))) / np.float32(127.0), np.float32(1e-30))
        per = np.float32(1.0) / unit
        total = np.float32(0.0)
        for c in range(row.shape[0]):
            value = np.float32(_float(row[c]))
            whole = np.float32(np.rint(value * per))
            rest = value - unit * whole
            total += rest * rest
            to[c] = np.int8(np.int32(whole))
        scale[i] = unit
        error[i] = np.sqrt(total)


@kernel
def residual_codes(rotated: F32, centre: F32, at: I64, code: U64, factor: F32) -> None:
    """Write the signs of rotated residuals, and what turns them into an estimate of inner products.

    Of v = Rx - Rc: s = sign(v), f = |v|^2 / |v|_1, a = Rc.v - f s.Rc; then q.x ≈ q.c + a + f s.Rq.

    rotated: (n, D) float32, Rx, D a multiple of 64; centre: (C, D) float32, Rc; at: (n,) int64, list of each row
    code: (n, D/64) uint64, out: bits of s; factor: (n, 2) float32, out: a and f, 0 where x = c
    """
    for i in range(rotated.shape[0]):
        row, middle = rotated[i], centre[at[i]]
        square = np.float32(0.0)
        size = np.float32(0.0)
        cross = np.float32(0.0)
        signed = np.float32(0.0)
        for c in range(row.shape[0]):
            v = row[c] - middle[c]
            square += v * v
            size += abs(v)
            cross += middle[c] * v
            signed += middle[c] if v >= np.float32(0.0) else -middle[c]
        f = square / size if size > np.float32(0.0) else np.float32(0.0)
        factor[i, 0] = cross - f * signed
        factor[i, 1] = f
        for w in range(code.shape[1]):
            bits = np.uint64(0)
            for j in range(64):
                v = row[64 * w + j] - middle[64 * w + j]
                bits |= np.uint64(1 if v >= np.float32(0.0) else 0) << np.uint64(j)
            code[i, w] = bits


@kernel
def digit_planes(rotated: F32, planes: U64, unit: F32, error: F32) -> None:
    """Write rows as unit (±8 ± 4 ± 2 ± 1), the signs as bits: 16 even steps from the largest number to its negative.

    rotated: (b, D) float32, D a multiple of 64; planes: (b, D/64, 4) uint64, out, bit set: +, plane p: 2^p
    unit: (b,) float32, out; error: (b,) float32, out: norm of the difference
    """
    for i in range(rotated.shape[0]):
        row = rotated[i]
        top = np.float32(0.0)
        for c in range(row.shape[0]):
            top = max(top, abs(row[c]))
        step = max(top / np.float32(15.0), np.float32(1e-30))
        total = np.float32(0.0)
        for w in range(planes.shape[1]):
            for p in range(4):
                planes[i, w, p] = np.uint64(0)
            for j in range(64):
                value = row[64 * w + j]
                level = min(max(int((value / step + 16.0) / 2.0), 0), 15)
                rest = value - step * np.float32(2 * level - 15)
                total += rest * rest
                for p in range(4):
                    planes[i, w, p] |= np.uint64((level >> p) & 1) << np.uint64(j)
        unit[i] = step
        error[i] = np.sqrt(total)


@kernel
def nearest_list(product: F32, unit: F32, at: I64, sim: F32) -> None:
    """Write where unit[c] product[i, c] is largest, the lowest such c, and its value.

    product: (n, C) float32 or int32; unit: (C,) float32; at: (n,) int64 and sim: (n,) float32, out
    """
    for i in range(product.shape[0]):
        top, where = np.float32(-np.inf), 0
        for start in range(0, product.shape[1], 64):
            part, scale = product[i, start : start + 64], unit[start : start + 64]
            over = np.int32(0)  # counted: a maximum is not vectorised
            for c in range(part.shape[0]):
                over += np.int32(np.float32(part[c]) * scale[c] > top)
            for c in range(part.shape[0] if over > 0 else 0):
                value = np.float32(np.float32(part[c]) * scale[c])
                if value > top:
                    top, where = value, start + c
        at[i] = where
        sim[i] = top


@kernel
def choose_lists(product: F32, unit: F32, most: F32, length: I32, few: int, many: int, chosen: U8) -> None:
    """Choose the lists that each query reads, nearest first, until they have `few` rows or more, and `many` or more.

    Nearest by unit[c] product[i, c], in 2,048 equal steps of -most[i] … most[i]; of equals the lowest.

    product: (b, C) float32 or int32; unit: (C,), most: (b,) float32; length: (C,) int32, rows of each list
    chosen: (C, b) uint8, out: 2: among the first `few` rows, 1: among the `many`, 0: not chosen
    """
    weight = np.empty(2048, dtype=np.int64)
    step = np.empty(product.shape[1], dtype=np.int32)
    for i in range(product.shape[0]):
        part = product[i]
        scale = np.float32(1023.5) / max(most[i], np.float32(1e-30))
        for c in range(part.shape[0]):
            place = np.int32(np.float32(part[c]) * unit[c] * scale + np.float32(1024.0))
            step[c] = min(max(place, np.int32(0)), np.int32(2047))
        weight[:] = 0
        for c in range(part.shape[0]):
            weight[step[c]] += length[c]
        for mark, budget in ((1, many), (2, few)):
            total, cut = 0, 2048
            while cut > 0 and total < budget:
                cut -= 1
                total += weight[cut]
            total -= weight[cut] if cut < 2048 else 0
            for c in range(part.shape[0]):
                if step[c] > cut or (step[c] == cut and total < budget):
                    chosen[c, i] = mark
                    total += length[c] if step[c] == cut else 0
                elif mark == 1:
                    chosen[c, i] = 0


@kernel
def add_rows(rows: F32, at: I64, total: F64) -> None:
    """Add each row to the sum of its list. rows: (n, d) float32; at: (n,) int64; total: (C, d) float64, in place."""
    for i in range(rows.shape[0]):
        row, to = rows[i], total[at[i]]
        for c in range(row.shape[0]):
            to[c] += row[c]


@kernel
def append_codes(
    at: I64,
    rows: I64,
    code: U64,
    factor: F32,
    first: I32,
    last: I32,
    length: I32,
    follow: I32,
    free: I64,
    codes: U64,
    factors: F32,
    slot: I32,
) -> int:
    """Write the codes of rows behind those of their lists, and return how many pages were taken.

    at, rows: (n,) int64, list and number of each row; code: (n, W) uint64; factor: (n, 2) float32
    first, last, length: (C,) int32, first and last page of each list (-1: none), rows in it, in place
    follow: (P,) int32, next page of the same list or -1, in place; free: pages to take, in this order
    codes: (P, W, page) uint64, factors: (P, 2, page) float32, slot: (P, page) int32, row or -1, in place
    """
    size = slot.shape[1]
    taken = 0
    for i in range(at.shape[0]):
        c = at[i]
        place = length[c] % size
        if place == 0:
            page = free[taken]
            taken += 1
            follow[page] = -1
            for j in range(size):
                slot[page, j] = -1
                factors[page, 0, j] = 0.0
                factors[page, 1, j] = 0.0
                for w in range(codes.shape[1]):
                    codes[page, w, j] = np.uint64(0)
            if length[c] == 0:
                first[c] = page
            else:
                follow[last[c]] = page
            last[c] = page
        page = last[c]
        for w in range(codes.shape[1]):
            codes[page, w, place] = code[i, w]
        factors[page, 0, place] = factor[i, 0]
        factors[page, 1, place] = factor[i, 1]
        slot[page, place] = rows[i]
        length[c] += 1
    return taken
