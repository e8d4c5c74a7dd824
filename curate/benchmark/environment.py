"""What figures were measured on and with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from curate.version import __version__

_LIBRARIES = ("numpy", "scipy", "numba", "torch", "onnxruntime", "scikit-learn", "scikit-image", "pillow")


def environment() -> dict[str, str]:
    """Return machine and versions; no time, no host's name."""
    told = {"curate-engine": __version__, "python": platform.python_version(), "machine": platform.machine()}
    told |= {"processor": _processor(), "cores": str(os.cpu_count() or 1)}
    for name in _LIBRARIES:
        try:
            told[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            told[name] = "not installed"
    return told


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
