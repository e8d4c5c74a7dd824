"""Counts and sums over the pixels of one picture, from which its quality is read."""

from __future__ import annotations

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F64, I64, U8


@kernel
def luma_counts(luma: U8, histogram: I64) -> int:
    """Pixels of each luminance; return the sum of |4 centre - left - right - above - below| inside the border.

    luma: (h, w) uint8; histogram: (256,) int64, out
    """
    height, width = luma.shape
    histogram[:] = 0
    for i in range(height):
        for j in range(width):
            histogram[luma[i, j]] += 1
    total = 0
    for i in range(1, height - 1):
        above, row, below = luma[i - 1], luma[i], luma[i + 1]
        line = 0
        for j in range(1, width - 1):
            around = np.int32(row[j - 1]) + np.int32(row[j + 1]) + np.int32(above[j]) + np.int32(below[j])
            line += int(abs(np.int32(4) * np.int32(row[j]) - around))
        total += line
    return total


@kernel
def opponent_moments(pixels: U8, step: int, out: F64) -> None:
    """Mean and variance of rg = R - G and of yb = (R + G)/2 - B, over every step-th row, `step` pixels averaged each.

    Pixels that fill no block at the right end of a row are left out, unless the row is shorter than a block.

    pixels: (H, W, 3) uint8; out: (4,) float64: mean rg, mean yb, variance rg, variance yb
    """
    height, width = pixels.shape[0], pixels.shape[1]
    wide = min(step, width)
    blocks = 0
    out[:] = 0.0
    for i in range(0, height, step):
        row = pixels[i].reshape(-1)
        sum_rg, sum_yb, square_rg, square_yb = 0, 0, 0, 0
        for c in range(width // wide):
            red, green, blue = 0, 0, 0
            block = row[3 * wide * c : 3 * wide * (c + 1)]
            for k in range(wide):
                red += block[3 * k]
                green += block[3 * k + 1]
                blue += block[3 * k + 2]
            rg, yb = red - green, red + green - 2 * blue
            sum_rg += rg
            sum_yb += yb
            square_rg += rg * rg
            square_yb += yb * yb
        out[0] += sum_rg
        out[1] += sum_yb
        out[2] += square_rg
        out[3] += square_yb
        blocks += width // wide
    unit = float(wide)
    out[0] /= blocks * unit
    out[1] /= blocks * unit * 2.0
    out[2] = max(out[2] / (blocks * unit * unit) - out[0] * out[0], 0.0)
    out[3] = max(out[3] / (blocks * unit * unit * 4.0) - out[1] * out[1], 0.0)
