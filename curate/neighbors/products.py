"""Rough products of rows: float32, whole numbers or bfloat16, whichever the processor computes fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curate.processor import flags, has_bfloat16_units
from curate_kernels.arrays import F32
from curate_kernels.codes import half_to_bfloat16, half_to_float, half_to_int8
from curate_kernels.search import I8, U16

TILE = 1024  # rows whose product with a batch of queries stays in a core's cache
_STEP = 512  # tiles are padded to whole steps: oneDNN prepares each new shape for milliseconds
_BF16_ERROR = np.float32(2.0**-8 + 2.0**-9 + 2.0**-16)  # both factors and the product rounded to 8 bits of mantissa
_REMEMBERED = 2**24  # numbers
_WORTH_TORCH = 1e8  # multiplications from which torch pays

# values (b or more, m or more) float32 or int32, left (b,), right (m,), room (b,): see `near_tile`
Rough = tuple[Any, F32, F32, F32]


def fastest_product() -> str:
    """Return "float32", "int8" or "bfloat16", by the processor's flags."""
    if "amx_bf16" in flags():
        return "bfloat16"
    if flags() & {"avx512_vnni", "avx_vnni"}:
        return "int8"
    return "bfloat16" if has_bfloat16_units() else "float32"


def whole_numbers(x: F32) -> tuple[I8, F32]:
    """Return rows (n, d) as int8 multiples of a unit (n,) of their own."""
    unit = np.maximum(np.abs(x).max(axis=1, initial=0.0) / np.float32(127.0), np.float32(1e-30))
    return np.rint(x / unit[:, None]).astype(np.int8), unit


def whole_product(left: I8, right: I8) -> Any:
    """Return left @ right.T as int32, or the same numbers as float32: (n, d), (m, d) -> (n, m)."""
    n, m = left.shape[0], right.shape[0]
    if fastest_product() == "float32" or float(n) * m * left.shape[1] < _WORTH_TORCH:
        return left.astype(np.float32) @ right.T.astype(np.float32)
    return _int8_product(_filled(left, 64), _filled(right, _STEP))[:n, :m]


def _int8_product(left: I8, right: I8) -> Any:
    import torch

    return torch._int_mm(torch.from_numpy(left), torch.from_numpy(right).T).numpy()


class WholeTiles:
    """Tiles of rows as whole numbers; the first ones, up to 16 MB, are remembered."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[I8, F32, float]] = {}

    def tile(self, rows: U16, base: int, size: int) -> tuple[I8, F32, float]:
        """Return rows base … base + size - 1, padded to whole steps, their units (size,), and the largest error."""
        if base in self._made and size == TILE:
            return self._made[base]
        whole = np.zeros((_padded(size, _STEP), rows.shape[1]), dtype=np.int8)
        unit, error = (np.empty(size, dtype=np.float32) for _ in range(2))
        half_to_int8(rows[base : base + size], whole, unit, error)
        made = whole, unit, float(error.max())
        if size == TILE and (len(self._made) + 1) * whole.size <= _REMEMBERED:
            self._made[base] = made
        return made


def float32_tiles(rows: U16, longest: float, queries: F32) -> Callable[[int, int], Rough]:
    """Return the function of a tile (first row, size) that gives its rough similarities to queries (b, d)."""
    b, d = queries.shape
    tile = np.empty((TILE, d), dtype=np.float32)
    one: F32 = np.ones(max(b, TILE), dtype=np.float32)
    room = _sums(d) * np.float32(longest) * _norms(queries)

    def rough(base: int, size: int) -> Rough:
        half_to_float(rows[base : base + size], tile)
        return queries @ tile[:size].T, one[:b], one[:size], room

    return rough


def bfloat16_tiles(rows: U16, longest: float, queries: F32) -> Callable[[int, int], Rough]:
    """See `float32_tiles`."""
    import torch

    b, d = queries.shape
    tile = np.zeros((TILE, d), dtype=np.uint16)
    short = torch.from_numpy(tile.view(np.int16)).view(torch.bfloat16)
    ask = torch.zeros((_padded(b, 64), d), dtype=torch.bfloat16)
    ask[:b] = torch.from_numpy(queries)
    one: F32 = np.ones(max(b, TILE), dtype=np.float32)
    room = (_BF16_ERROR + _sums(d)) * np.float32(longest) * _norms(queries)

    def rough(base: int, size: int) -> Rough:
        half_to_bfloat16(rows[base : base + size], tile)
        values = torch.mm(ask, short[: _padded(size, _STEP)].T).float().numpy()
        return values, one[:b], one[:size], room

    return rough


def int8_tiles(rows: U16, longest: float, queries: F32, tiles: WholeTiles) -> Callable[[int, int], Rough]:
    """See `float32_tiles`. Of q ≈ q' and x ≈ x' in whole numbers: |q.x - q'.x'| ≤ |q - q'| |x| + |q'| |x - x'|."""
    whole, scale = whole_numbers(queries)
    error, length = _norms(queries - whole * scale[:, None]), _norms(queries)
    apart = np.float32(longest) * (error + _sums(queries.shape[1]) * length)
    whole = _filled(whole, 64)

    def rough(base: int, size: int) -> Rough:
        tile, unit, away = tiles.tile(rows, base, size)
        return _int8_product(whole, tile), scale, unit, apart + (length + error) * np.float32(away * (1 + 1e-4))

    return rough


def _sums(d: int) -> np.float32:
    """Return the relative error of two sums of d products in float32."""
    return np.float32(2.0**-22 * (d + 2))


def _norms(x: F32) -> F32:
    """Return the norms, none too small."""
    norms: F32 = np.sqrt(np.einsum("ij,ij->i", x, x)) * np.float32(1 + 1e-4)
    return norms


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step


def _filled(x: I8, step: int) -> I8:
    missing = _padded(x.shape[0], step) - x.shape[0]
    return np.concatenate([x, np.zeros((missing, x.shape[1]), dtype=np.int8)]) if missing else x
