"""V-information of a pair under a contrastive family: negCLIPLoss, in bits, without the matrix of all similarities.

With s_ij = cos(f_i, g_j) / tau over a batch of B pairs (f, g in one space, as CLIP gives them), per pair i

    s1  = -log2 softmax probability of the own pair, mean of both directions (image to text, text to image)
    s0  = log2 B: the best prediction without the other view is uniform over the candidates
    pvi = s0 - s1 = cos_ii / (tau ln 2) - partition,  partition = log2 of the mean of 2^(s_ij / ln 2), both directions

negCLIPLoss (Wang et al., NeurIPS 2024, arXiv 2405.19547, eq. 1) = cos_ii - tau/2 (ln Σ_j e^s_ij + ln Σ_j e^s_ji), hence

    negCLIPLoss = -tau ln 2 · s1        pvi = log2 B + negCLIPLoss / (tau ln 2)   at most log2 B

so all three rank pairs alike, and `partition` is what negCLIPLoss takes off the cosine: high for captions and images
that go with everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from curate.errors import UsageError
from curate_kernels.arrays import F32, F64, I64, as_rows, unit_rows
from curate_kernels.infonce import exp2_sums

INFONCE_COLUMNS = ("s0_infonce", "s1_infonce", "pvi_infonce", "partition_infonce")
Product = Literal["auto", "float32", "int8"]

_ROWS, _COLUMNS = 2048, 2048  # of a tile: 16 MB, and three rows of it in the L1 cache
_TOP = 100  # the largest exponent of a tile is moved here, so that sums of 2,048 fit and 225 binades lie below
_LEAST = -125
_INT8_FROM = 4096  # smaller batches take less time than loading torch
_TOLERANCE = 0.05  # bits, root mean square over the rows asked, that int8 products may move log2 of a partition
_ASKED = 128


def contrastive_information(
    x: F32,
    y: F32,
    temperature: float = 0.01,
    batch: int = 32_768,
    repeats: int = 5,
    seed: int = 0,
    product: Product = "auto",
) -> dict[str, F32]:
    """Return INFONCE_COLUMNS, (n,) float32 bits, of the pairs of rows of x and y: higher `pvi` means a better match.

    x, y: (n, d) float32 embeddings of both views in one space; their rows are scaled to norm 1. temperature: tau, the
    one that the encoder was trained with. batch: B, the number of candidates; n pairs make ceil(n / B) batches of
    nearly equal size. repeats: random divisions into batches to take the mean of; one where a batch holds all pairs.
    product: "float32"; "int8": rotated, centred and rounded to 8 bits, about 3 times faster, the own pair still in
    float32; "auto": int8 where a sample says that it moves log2 of a partition by at most 0.05 bits (r.m.s.).

    Memory: two copies of the embeddings and 16 MB, never B x B. The result depends on the arguments alone.

    Raises:
        UsageError: x and y have different shapes, or a number is out of range.
    """
    x, y = as_rows(x, "x"), as_rows(y, "y")
    if x.shape != y.shape:
        raise UsageError(f"x has shape {x.shape}, y {y.shape}; pairs need equal shapes in one embedding space")
    if not (temperature >= 1e-4 and batch >= 1 and repeats >= 1):
        raise UsageError(f"temperature {temperature}, batch {batch}, repeats {repeats}; at least 1e-4, 1 and 1")
    n = x.shape[0]
    x, y = unit_rows(x), unit_rows(y)
    own = np.einsum("ij,ij->i", x, y, dtype=np.float64) / (temperature * math.log(2))
    factors = _factors(x, y, temperature, product, min(n, batch))
    s0, s1 = np.zeros(n), np.zeros(n)
    divisions = list(_divisions(n, batch, repeats, seed))
    for rows in divisions:
        s0[rows] += math.log2(rows.size)
        s1[rows] += _surprise(factors.take(rows), own[rows])
    rounds = max(len(divisions) // max(-(-n // batch), 1), 1)
    s0, s1 = s0 / rounds, s1 / rounds
    columns = (s0, s1, s0 - s1, own - (s0 - s1))
    return {name: value.astype(np.float32) for name, value in zip(INFONCE_COLUMNS, columns, strict=True)}


def _divisions(n: int, batch: int, repeats: int, seed: int) -> Iterator[I64]:
    """Yield the rows of every batch of every round."""
    parts = -(-n // batch)
    rng = np.random.default_rng(seed)
    for _ in range(repeats if parts > 1 else parts):
        yield from np.array_split(rng.permutation(n), parts)


@dataclass(frozen=True, slots=True)
class _Factors:
    """Exponents of two: e_ij = (left_i · right_j) row_scale_i column_scale_j + row_bias_i + column_bias_j."""

    left: Any  # (r, d) float32 or int8
    right: Any  # (c, d) of the same kind
    row_scale: F32
    column_scale: F32
    row_bias: F32
    column_bias: F32

    def take(self, rows: Any, columns: Any = None) -> _Factors:
        """Return the factors of some rows and some columns, of the same ones if `columns` is not given."""
        c = rows if columns is None else columns
        sides = (self.left[rows], self.right[c], self.row_scale[rows], self.column_scale[c])
        return _Factors(*sides, self.row_bias[rows], self.column_bias[c])

    def product(self, out: Any) -> None:
        """Write left · rightᵀ to `out`, float32 or int32."""
        if self.left.dtype == np.float32:
            np.matmul(self.left, self.right.T, out=out)
            return
        import torch

        left, right = torch.from_numpy(self.left), torch.from_numpy(self.right)
        torch._int_mm(left, right.T, out=torch.from_numpy(out))

    def exponents(self) -> F32:
        """Return every e_ij, (r, c) float32."""
        out = np.empty((self.left.shape[0], self.right.shape[0]), np.float32 if self.left.dtype.kind == "f" else "i4")
        self.product(out)
        scaled: F32 = out * (self.row_scale[:, None] * self.column_scale) + (self.row_bias[:, None] + self.column_bias)
        return scaled


def _factors(x: F32, y: F32, temperature: float, product: Product, batch: int) -> _Factors:
    per_nat = np.float32(1.0 / (temperature * math.log(2)))
    n = x.shape[0]
    one, zero = np.ones(n, np.float32), np.zeros(n, np.float32)
    plain = _Factors(x, y, one * per_nat, one, zero, zero)
    if product == "float32" or (product == "auto" and batch < _INT8_FROM) or n == 0:
        return plain
    rounded = _quantised(x, y, per_nat)
    return rounded if product == "int8" or _is_close(plain, rounded, batch) else plain


def _quantised(x: F32, y: F32, per_nat: np.float32) -> _Factors:
    """Return the same exponents from 8-bit integers.

    With a and b the means of x and y, x·y = (x-a)·(y-b) + (x-a)·b + a·y: only the first product is rounded, and what
    all rows share is not in it. Turning both views alike changes no product and leaves no coordinate that is much
    larger than the others, so that one scale a row suffices.
    """
    d = x.shape[1]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))[0].astype(np.float32)
    a, b = x.mean(axis=0), y.mean(axis=0)
    left, row_scale = _to_int8(x, a, turn)
    right, column_scale = _to_int8(y, b, turn)
    return _Factors(left, right, row_scale * per_nat, column_scale, (x @ b - a @ b) * per_nat, (y @ a) * per_nat)


def _to_int8(x: F32, mean: F32, turn: F32) -> tuple[Any, F32]:
    """Return the centred, turned rows in units of 1/127 of their largest entry, and those units."""
    out = np.empty(x.shape, dtype=np.int8)
    unit = np.empty(x.shape[0], dtype=np.float32)
    for low in range(0, x.shape[0], _COLUMNS):
        rows = (x[low : low + _COLUMNS] - mean) @ turn
        step = np.maximum(np.abs(rows).max(axis=1, initial=0.0) / 127, np.float32(1e-30))
        out[low : low + _COLUMNS] = np.rint(rows / step[:, None])
        unit[low : low + _COLUMNS] = step
    return out, unit


def _is_close(plain: _Factors, rounded: _Factors, batch: int) -> bool:
    """Whether rounding moves the log2 partition of evenly spaced rows, over `batch` candidates, by little."""
    n = plain.row_scale.size
    rows, columns = (np.unique(np.linspace(0, n - 1, m).astype(np.int64)) for m in (min(_ASKED, n), min(batch, n)))
    own = rows[:, None] == columns
    totals = [_log2_sum(np.where(own, -np.inf, f.take(rows, columns).exponents()), 1) for f in (plain, rounded)]
    moved = (totals[0] - totals[1])[np.isfinite(totals[0])]
    return float(np.sqrt(np.mean(moved**2))) <= _TOLERANCE if moved.size else True


def _log2_sum(exponent: F32 | F64, axis: int) -> F64:
    """Return log2 of the sums of 2^exponent along an axis, -inf of nothing."""
    top = exponent.max(axis=axis, keepdims=True, initial=-1e30)
    with np.errstate(divide="ignore"):
        total: F64 = np.log2(np.exp2(exponent - top).sum(axis=axis, dtype=np.float64)) + top.squeeze(axis)
    return total


class _Partition:
    """Running sums of powers of two, each with its own offset: no exponent is too large, and none is lost."""

    def __init__(self, count: int) -> None:
        self._top = np.full(count, -np.inf)
        self._sum = np.zeros(count)

    def add(self, at: slice, value: F32 | F64, top: float | F64) -> None:
        """Add value · 2^top to the sums at `at`; value: (m,), top finite."""
        high = np.maximum(self._top[at], top)
        self._sum[at] = self._sum[at] * np.exp2(self._top[at] - high) + value * np.exp2(top - high)
        self._top[at] = high

    def log2(self) -> F64:
        """Return log2 of every sum, -inf of nothing."""
        with np.errstate(divide="ignore"):
            total: F64 = np.log2(self._sum) + np.where(self._sum > 0, self._top, 0.0)
        return total


def _surprise(factors: _Factors, own: F64) -> F64:
    """Return -log2 of the softmax probability of each row's own column, mean of both directions; own: (b,) exponents.

    The own pair is left out of the sums and put back exactly: log2(1 + rest / 2^own) does not cancel where it is all.
    """
    count = own.size
    along, down = _Partition(count), _Partition(count)
    buffer = np.empty(_ROWS * _COLUMNS, np.float32 if factors.left.dtype.kind == "f" else np.int32)
    shift = 0.0
    for i in range(0, count, _ROWS):
        rows = slice(i, min(i + _ROWS, count))
        for j in range(0, count, _COLUMNS):
            columns = slice(j, min(j + _COLUMNS, count))
            tile = factors.take(rows, columns)
            shape = (rows.stop - i, columns.stop - j)
            out = buffer[: shape[0] * shape[1]].reshape(shape)
            tile.product(out)
            shift = _add_tile(tile, out, i - j, shift, (along, rows), (down, columns))
    rest = np.logaddexp2(0.0, along.log2() - own) + np.logaddexp2(0.0, down.log2() - own)
    return rest / 2


def _add_tile(
    tile: _Factors,
    product: Any,
    own: int,
    shift: float,
    along: tuple[_Partition, slice],
    down: tuple[_Partition, slice],
) -> float:
    """Add one tile's sums both ways; return the offset that suits it, for the next one to try."""
    row, column = (np.empty(size, dtype=np.float32) for size in product.shape)
    span = np.empty(2, dtype=np.int64)
    for _ in range(2):
        bias = tile.row_bias - np.float32(shift)
        exp2_sums(product, tile.row_scale, tile.column_scale, bias, tile.column_bias, own, row, column, span)
        low, high = int(span[0]), int(span[1])
        if low >= _LEAST and high <= _TOP + 12:
            along[0].add(along[1], row, shift)
            down[0].add(down[1], column, shift)
            return shift
        shift += high - _TOP
    # More than 225 binades between the least and the largest: rare, so plainly, each row and column by itself.
    exponent = tile.exponents().astype(np.float64)
    at = np.arange(product.shape[0])
    at = at[(at + own >= 0) & (at + own < product.shape[1])]
    exponent[at, at + own] = -np.inf
    for (sums, where), axis in ((along, 1), (down, 0)):
        total = _log2_sum(exponent, axis)
        some = np.isfinite(total)
        sums.add(where, some.astype(np.float64), np.where(some, total, -1e30))
    return shift
