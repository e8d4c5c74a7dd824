"""What the processor can do."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; none elsewhere."""
    file = Path("/proc/cpuinfo")
    return frozenset(file.read_text(encoding="utf-8").split()) if file.exists() else frozenset()


def has_bfloat16_units() -> bool:
    """Tell whether it multiplies bfloat16 faster than float32 (x86: AVX512_BF16 or AMX)."""
    return bool(flags() & {"avx512_bf16", "amx_bf16"})
