"""Numba's options, in one place. The only file that imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")

# LLVM's fast-math flags without `nnan` and `ninf`: `fastmath=True` would delete every check for NaN.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function on its first call, for one thread, and keep the machine code on disk.

    Numba's disk cache sees changes of this function's own file only, so helpers that a kernel calls stay in its file.
    """
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")(function)
    return compiled
