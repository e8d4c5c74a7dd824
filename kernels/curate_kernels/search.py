"""What a search of kept rows reads and writes, in named parts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate_kernels.arrays import B1, F32, F64, I32, I64, U8

I8 = NDArray[np.int8]
U16 = NDArray[np.uint16]
U64 = NDArray[np.uint64]


class Kept(NamedTuple):
    """Kept rows. flags: bit 0: may be returned, bit 1: has a caption; need: the bits that a row must have."""

    rows: U16  # (n, d) bits of float16: what is searched, images or captions
    captions: U16  # (n, t) bits of float16
    flags: U8  # (n,)
    need: int


class Asked(NamedTuple):
    """Queries, and what was found for them so far, in place."""

    queries: F32  # (b, d)
    captions: F32  # (b, t)
    captioned: B1  # (b,) its twin has the same caption
    least: F64  # (2,) similarity of images and of captions from which two are duplicates; of captions ≤ -1: any
    best: F32  # (b, k) largest similarities, descending, -inf where empty
    twin_sim: F32  # (b,) similarity of the most similar duplicate, -inf where there is none
    twin_row: I64  # (b,) its row, of equals the lowest, -1 where there is none


class Coded(NamedTuple):
    """Lists of rows as codes, in pages; `residual_codes` says what they hold."""

    centre: F32  # (C, d) unit rows
    first: I32  # (C,) first page of a list, -1 where it is empty
    follow: I32  # (P,) next page of the same list, or -1
    codes: U64  # (P, W, PAGE) bits of s, a row's in one column
    factor: F32  # (P, 2, PAGE) a and f
    slot: I32  # (P, PAGE) row of each place, or -1


class Rotated(NamedTuple):
    """Rotated queries in four binary digits; `digit_planes` writes them."""

    planes: U64  # (b, W, 4) their signs
    unit: F32  # (b,)
    error: F32  # (b,) norm of what they leave out
