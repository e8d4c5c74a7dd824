"""Fixtures and settings that every test shares. Numba's cache is pinned here, before anything imports numba."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

KERNELS = Path(__file__).parents[1] / "kernels"


def kernel_digest() -> str:
    """Digest of all kernel sources: numba's own disk cache does not see changes in the files that a kernel imports."""
    parts = [path.read_bytes() for path in sorted(KERNELS.rglob("*.py"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


USER = os.getuid() if hasattr(os, "getuid") else 0
os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"curate-numba-{USER}-{kernel_digest()}")

settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded anew for each test."""
    return np.random.default_rng(0)
