"""Partition sums of a contrastive family: powers of two of a tile of similarities, summed both ways in one pass.

InfoNCE: van den Oord et al., 2018 (arXiv 1807.03748, eq. 4).
"""

from __future__ import annotations

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, I32, I64


@kernel
def exp2_sums(
    product: F32 | I32,
    row_scale: F32,
    column_scale: F32,
    row_bias: F32,
    column_bias: F32,
    own: int,
    row: F32,
    column: F32,
    span: I64,
) -> None:
    """Sums along the rows and along the columns of 2^e, without each row's own column.

    e_ij = product_ij row_scale_i column_scale_j + row_bias_i + column_bias_j, in float32; 2^e = 2^n 2^f with n the
    nearest integer and |f| <= 1/2: a polynomial of degree 5 (relative error 2e-7) whose exponent field is raised by n.
    The sums hold where -126 <= n and n + log2(max(r, c)) <= 127: the caller looks at `span`.

    product: (r, c) float32 or int32, C-contiguous; row_scale, row_bias: (r,); column_scale, column_bias: (c,) float32
    own: the own column of row i is i + own, if that is one of the c
    row: (r,) float32, out; column: (c,) float32, out; span: (2,) int64, out: least and largest n, own ones included
    """
    rows, columns = product.shape
    power = np.empty(columns, dtype=np.int32)
    value = np.empty(columns, dtype=np.float32)
    bits = value.view(np.int32)
    low, high = np.int32(2**20), np.int32(-(2**20))
    column[:] = 0.0
    # Four plain loops over a row that lies in the L1 cache: each becomes vector instructions, one loop would not.
    for i in range(rows):
        scale, bias = row_scale[i], row_bias[i]
        for j in range(columns):
            e = np.float32(product[i, j]) * (scale * column_scale[j]) + (bias + column_bias[j])
            n = np.int32(np.int32(e + np.float32(2048.5)) - 2048)
            f = e - np.float32(n)
            p = np.float32(0.0013276466) * f + np.float32(0.0096755413)
            p = p * f + np.float32(0.055507133)
            p = p * f + np.float32(0.24022120)
            p = p * f + np.float32(0.69314697)
            value[j] = p * f + np.float32(1.0)
            power[j] = n
        for j in range(columns):
            low = min(low, power[j])
            high = max(high, power[j])
        for j in range(columns):
            bits[j] += power[j] << 23
        if 0 <= i + own < columns:
            value[i + own] = 0.0
        total = np.float32(0.0)
        for j in range(columns):
            total += value[j]
            column[j] += value[j]
        row[i] = total
    span[0] = low
    span[1] = high
